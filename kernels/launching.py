"""What every host function of this folder needs: which tiles fit this device, and one way to refuse wrong arguments.

A configuration is chosen by the shared memory that one block may use: 227 KiB on H100 and H200, 163 on A100, 99 on
L4 and RTX cards, 64 on a T4. On a CPU the kernels run in Triton's interpreter, where shared memory has no limit.
"""

import functools

import torch
import triton

INTERPRETER = 1 << 20  # "KiB" of a CPU: every tile fits


@functools.cache
def shared_memory(device: torch.device) -> int:
    """KiB of shared memory that one block may use on this device."""
    if device.type != "cuda":
        return INTERPRETER
    return torch.cuda.get_device_properties(device).shared_memory_per_block_optin // 1024


def choose(configs: dict[int, dict], device: torch.device, itemsize: int = 2) -> dict:
    """The first configuration whose need (KiB, for 2-byte elements) fits; configs are ordered from the largest need down.

    Exact float32 products use no tensor cores, on any GPU, as all products on a T4: they get the tiles made for its 64 KiB.
    """
    limit = shared_memory(device)
    fits = limit if itemsize == 2 or limit == INTERPRETER else 32
    return next((config for need, config in configs.items() if need <= fits), configs[min(configs)])


def not_compiled_in(kernel, *lengths: str):
    """The same kernel for a length of 1, which Triton otherwise compiles in as a constant, as it does multiples of 16 (those make it faster).

    Constant zeros in an operand of a product then lead the assembler of CUDA 12.8 astray on sm_90: see tools/ahead_machine_code.py.
    """
    return triton.jit(kernel.fn, do_not_specialize=list(lengths))


def power_of_two(n: int) -> int:
    """The least power of two that is n or more, and at least 16: the shortest side that `tl.dot` takes."""
    return max(16, triton.next_power_of_2(n))


def autocast(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The tensors in the dtype of the torch.autocast that is on for their device; as they are where none is, or where they hold no floats."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype, floats = torch.get_autocast_dtype(device), (torch.float32, torch.float16, torch.bfloat16)
    return tuple(x.to(dtype) if x.dtype in floats else x for x in tensors)


def require(holds: bool, kernel: str, sentence: str, **tensors: torch.Tensor) -> None:
    """ValueError with the shapes and dtypes of the tensors where something a kernel relies on does not hold."""
    if not holds:
        shapes = ", ".join(f"{name} is {list(x.shape)} {str(x.dtype).removeprefix('torch.')} on {x.device}" for name, x in tensors.items())
        raise ValueError(f"{kernel}: {sentence} ({shapes})")


def require_floats(kernel: str, **tensors: torch.Tensor) -> None:
    """All on one device, of one dtype that Triton can compute with here: float16, bfloat16 or float32, no bfloat16 on a CPU."""
    first = next(iter(tensors.values()))
    allowed = (torch.float16, torch.bfloat16, torch.float32)
    require(all(x.dtype in allowed for x in tensors.values()), kernel, "the tensors must be float16, bfloat16 or float32", **tensors)
    require(len({x.dtype for x in tensors.values()}) == 1, kernel, "the tensors must have one dtype; convert them first", **tensors)
    require(len({x.device for x in tensors.values()}) == 1, kernel, "the tensors must be on one device", **tensors)
    bad = first.device.type == "cpu" and first.dtype == torch.bfloat16
    require(not bad, kernel, "Triton's interpreter computes bfloat16 wrongly, so it is refused on a CPU; use float32", **tensors)


def require_attention(kernel: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float | None) -> float:
    """ValueError where q [B, H, N_Q, D] and k, v [B, H_KV, N_KV, D] do not fit together; returns the scale, 1 / sqrt(D) for None."""
    require_floats(kernel, q=q, k=k, v=v)
    fits = q.dim() == k.dim() == 4 and k.shape == v.shape and q.shape[0] == k.shape[0] and q.shape[3] == k.shape[3]
    require(fits, kernel, "q must be [B, H, N_Q, D] and k, v [B, H_KV, N_KV, D]", q=q, k=k, v=v)
    H, H_KV, D = q.shape[1], k.shape[1], q.shape[3]
    require(0 < D <= 256, kernel, "the head size D must be 1 to 256", q=q)
    require(H_KV > 0 and H % H_KV == 0, kernel, f"{H} query heads are not a multiple of {H_KV} K/V heads", q=q, k=k)
    for name, x in {"q": q, "k": k, "v": v}.items():  # the kernels count offsets inside a head in 32 bits
        near = x.shape[2] * x.stride(2) + x.shape[3] * x.stride(3) < 2**31
        require(near, kernel, f"a head of {name} spans 2^31 elements or more: rows lie {x.stride(2)} apart; pass {name}.contiguous()", **{name: x})
    scale = D**-0.5 if scale is None else float(scale)
    require(0 < scale < float("inf"), kernel, f"scale must be above 0 and finite; it is {scale}", q=q)
    return scale


def require_backward(kernel: str, q: torch.Tensor, dout: torch.Tensor, lse: torch.Tensor, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """ValueError where dout, lse and delta do not belong to q [B, H, N_Q, D]; returns lse and delta, contiguous."""
    require_floats(kernel, q=q, dout=dout)
    require(dout.shape == q.shape, kernel, "dout must have the shape of q, [B, H, N_Q, D]", q=q, dout=dout)
    near = dout.shape[2] * dout.stride(2) + dout.shape[3] * dout.stride(3) < 2**31
    require(near, kernel, f"a head of dout spans 2^31 elements or more: rows lie {dout.stride(2)} apart; pass dout.contiguous()", dout=dout)
    of_rows = all(x.shape == q.shape[:3] and x.dtype == torch.float32 and x.device == q.device for x in (lse, delta))
    require(of_rows, kernel, "lse and delta must be float32 [B, H, N_Q], on the device of q", q=q, lse=lse, delta=delta)
    return lse.contiguous(), delta.contiguous()


def require_window(kernel: str, window: int) -> int:
    """ValueError where a window is no whole number from 1 on; returns it, no larger than what 32 bits count."""
    if isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise ValueError(f"{kernel}: window is the number of keys a query sees, its own included: a whole number from 1 on; it is {window!r}")
    return min(window, 2**30)


def require_packed(kernel: str, q, k, v, cu_q, cu_k, max_q: int, max_k: int, scale: float | None) -> float:
    """ValueError where packed q [T_Q, H, D], k, v [T_K, H_KV, D] and the beginnings cu_q, cu_k [B + 1] do not fit together; returns the scale.

    What lies in cu_q and cu_k is looked at on a CPU only: on a GPU the host would have to wait for it.
    """
    require(q.dim() == k.dim() == v.dim() == 3, kernel, "q must be packed, [T_Q, H, D], and k, v [T_K, H_KV, D]", q=q, k=k, v=v)
    require(k.shape == v.shape, kernel, "k and v must have one shape, [T_K, H_KV, D]", q=q, k=k, v=v)
    scale = require_attention(kernel, *(x[:most].transpose(0, 1)[None] for x, most in ((q, max_q), (k, max_k), (v, max_k))), scale)
    starts = all(x.dim() == 1 and x.dtype == torch.int32 and x.device == q.device for x in (cu_q, cu_k)) and len(cu_q) == len(cu_k) > 0
    require(starts, kernel, "cu_q and cu_k must be int32 [B + 1], both as long, on the device of q", q=q, cu_q=cu_q, cu_k=cu_k)
    if q.device.type == "cpu":
        for name, cu, tokens, most in (("q", cu_q, len(q), max_q), ("k", cu_k, len(k), max_k)):
            lengths = cu.diff()
            ends = int(cu[0]) == 0 and int(cu[-1]) == tokens and bool((lengths >= 0).all())
            require(ends, kernel, f"cu_{name} must begin with 0, never fall, and end with the {tokens} tokens; it is {cu.tolist()}", q=q, k=k)
            longest = int(lengths.max()) if len(lengths) else 0
            require(longest <= most, kernel, f"max_{name} is {most}, and a sequence has {longest} tokens", q=q, k=k)
    return scale


def require_packed_backward(kernel: str, q, dout, lse, delta) -> tuple[torch.Tensor, torch.Tensor]:
    """ValueError where dout, lse and delta do not belong to packed q [T_Q, H, D]; returns lse and delta, contiguous."""
    require(dout.dim() == 3, kernel, "dout must be packed as q is, [T_Q, H, D]", q=q, dout=dout)
    require(lse.dim() == delta.dim() == 2, kernel, "lse and delta must be float32 [H, T_Q], on the device of q", q=q, lse=lse, delta=delta)
    lse, delta = require_backward(kernel, *(x.transpose(0, 1)[None] for x in (q, dout)), lse[None], delta[None])
    return lse[0], delta[0]
