"""What the hosts of the cache kernels share: how many splits fill the GPU, the tile a group of heads needs, and refusals.

Lengths, block tables and slots lie on the device, so that a step can be recorded as a CUDA graph: no host function reads them, and no
grid depends on them. The kernels keep to the memory they were given whatever stands there: a length below 0 counts as 0, one above the
cache's capacity as the capacity, and keys behind a table entry that names no block are hidden.
"""

import functools

import torch
import triton

from kernels.launching import INTERPRETER, power_of_two, require, require_floats, shared_memory

MOST_SPLITS = 1024
MERGE = 2  # what a second launch costs, in tiles


@functools.cache
def multiprocessors(device: torch.device) -> int:
    """How many programs run at once, one each; a stand-in of 8 where there is no GPU."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 8


def places(config: dict, row_bytes: int, device: torch.device, paged: bool = False) -> int:
    """How many programs the GPU holds at once, by the shared memory that a pipeline of K and V tiles takes (at most 4 a multiprocessor).

    The compiler keeps num_stages - 1 tiles of each; where a table is read first, it may keep half as many. An estimate: only speed hangs on it.
    """
    limit = 227 if shared_memory(device) == INTERPRETER else shared_memory(device)
    kept = (config["num_stages"] - 1) // (2 if paged else 1)
    tiles = 2 * config["BLOCK_N"] * row_bytes * max(1, kept)
    return multiprocessors(device) * max(1, min(4, limit * 1024 // tiles))


@functools.cache
def choose_splits(programs: int, tiles: int, places: int) -> int:
    """Into how many parts to cut `tiles` tiles of keys, for `programs` pairs of a request and a K/V head and `places` programs at once.

    The time is counted in tiles: as many waves as the programs need, each as long as the longest part and one tile to begin; and a merge.
    """
    cost = {
        splits: -(-programs * splits // places) * (-(-tiles // splits) + 1) + MERGE * (splits > 1)
        for splits in range(1, max(1, min(tiles, MOST_SPLITS, 2 * places // max(1, programs))) + 1)
    }
    return min(cost, key=lambda splits: (cost[splits], splits))


def heads_tile(group: int) -> int:
    """BLOCK_M for a group of query heads that share a K/V head: 16, as `tl.dot` needs, to 64; a larger group takes several programs."""
    return min(64, power_of_two(group))


def require_decode(kernel: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float | None, **integers: torch.Tensor) -> float:
    """What all kernels over a cache ask for: one dtype of q, k and v, D of 1 to 256, whole groups, int32 where int32 is due. Returns the scale."""
    require_floats(kernel, q=q, k_cache=k, v_cache=v)
    require(0 < q.shape[-1] <= 256, kernel, "the head size D must be 1 to 256", q=q)
    require(q.shape[-1] * q.stride(-1) < 2**31, kernel, "a row of q spans 2^31 elements or more; pass q.contiguous()", q=q)
    for name, x in integers.items():
        require(x.dtype == torch.int32 and x.device == q.device, kernel, f"{name} must be int32, on the device of q", q=q, **{name: x})
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    require(0 < scale < float("inf"), kernel, f"scale must be above 0 and finite; it is {scale}", q=q)
    return scale


def require_group(kernel: str, H: int, H_KV: int, **tensors: torch.Tensor) -> int:
    """Query heads of one K/V head."""
    require(H_KV > 0 and H % H_KV == 0, kernel, f"{H} query heads are not a multiple of {H_KV} K/V heads", **tensors)
    return H // H_KV


def require_near(kernel: str, rows: int, **tensors: torch.Tensor) -> None:
    """Inside a tile of `rows` keys the kernels count offsets in 32 bits; dimensions -2 and -1 are its rows and columns."""
    for name, x in tensors.items():
        near = rows * x.stride(-2) + x.shape[-1] * x.stride(-1) < 2**31
        require(near, kernel, f"a tile of {name} spans 2^31 elements or more: rows lie {x.stride(-2)} apart; pass {name}.contiguous()", **{name: x})


def require_paged(kernel: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, block_tables: torch.Tensor, lengths: torch.Tensor) -> int:
    """ValueError where the caches [NUM_BLOCKS, BLOCK, H_KV, D], block_tables [B, MAX] and lengths [B] do not fit; returns BLOCK."""
    fits = k.dim() == 4 and k.shape == v.shape and k.shape[3] == q.shape[2]
    require(fits, kernel, "k_cache and v_cache must be [NUM_BLOCKS, BLOCK, H_KV, D] with q's D", q=q, k_cache=k, v_cache=v)
    block = k.shape[1]
    require(1 <= block <= 256 and block == triton.next_power_of_2(block), kernel, f"BLOCK must be a power of two, 1 to 256; it is {block}", k_cache=k)
    for name, x in {"k_cache": k, "v_cache": v}.items():  # the kernels count offsets inside a block in 32 bits
        near = x.shape[1] * x.stride(1) + x.shape[3] * x.stride(3) < 2**31
        require(near, kernel, f"a block of {name} spans 2^31 elements or more: keys lie {x.stride(1)} apart; pass {name}.contiguous()", **{name: x})
    fits = block_tables.dim() == 2 and lengths.shape == block_tables.shape[:1]
    require(fits, kernel, "block_tables must be [B, MAX] and lengths [B]", block_tables=block_tables, lengths=lengths)
    return block


def require_splits(kernel: str, num_splits: int | None, **tensors: torch.Tensor) -> None:
    fine = num_splits is None or (isinstance(num_splits, int) and 1 <= num_splits <= MOST_SPLITS)
    require(fine, kernel, f"num_splits must be 1 to {MOST_SPLITS}; it is {num_splits}", **tensors)
