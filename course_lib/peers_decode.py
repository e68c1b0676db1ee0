"""Other people's attention over a cache, for races: SDPA with one query by backend, FlashAttention-3 with a page table, FlashInfer.

Each is made by a function that raises `NotHere`, or the library's own error, where it cannot run. The `arrange` functions turn a race's
tensors into a library's own, untimed; FlashInfer's plan, which reads the lengths on the host, is made there too. Knows no kernel of the course.
"""

import importlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib import peers
from course_lib.races import NotHere

WORKSPACE = 256 << 20


def one_query(backend: str | None) -> Callable:
    """SDPA of q [B, H, 1, D] over whole caches [B, H_KV, N, D], by one backend alone; None takes what torch chooses on this machine."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    if backend is None:
        return attend
    chosen = getattr(SDPBackend, backend)

    def by_backend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(chosen):
            return attend(q, k, v)

    explained, first = peers.explained(by_backend), True

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        nonlocal first
        if first:
            out, first = explained(q, k, v), False
            return out
        return by_backend(q, k, v)

    return call


def whole_caches(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
    """For SDPA, which knows no lengths: the races fill their caches."""
    return q[:, :, None], k, v


def tokens_first(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
    """For FlashAttention-3: q [B, 1, H, D], caches [B, N, H_KV, D]."""
    return q[:, None], *peers.rows_of_tokens(k, v), lengths


def flash_attention_3(max_q: int = 1) -> Callable:
    """FlashAttention-3 over caches; it chooses its own splits. With `tables` the caches are paged, with `cu_q` the queries packed."""
    peers.flash_attention_3(False)  # loads the library, or says why not
    forward = torch.ops.flash_attn_3.fwd

    def attend(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, tables: Tensor | None = None, cu_q: Tensor | None = None) -> Tensor:
        packed = {} if cu_q is None else {"cu_seqlens_q": cu_q, "max_seqlen_q": max_q, "is_causal": True}
        return forward(q, k, v, seqused_k=lengths, page_table=tables, softmax_scale=q.shape[-1] ** -0.5, **packed)[0]

    return attend


def _flashinfer():
    try:
        return importlib.import_module("flashinfer")  # no dependency of the course: whoever wants to race it installs it
    except Exception as error:  # it also looks for CUDA's compiler when it is imported
        raise NotHere(f"FlashInfer does not import here ({type(error).__name__}: {str(error)[:80]})") from None


def _pages(tables: Tensor, lengths: Tensor, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """FlashInfer's form of a table: where each request's pages begin, all pages, keys on each last page."""
    counts = -(-lengths // block)
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
    pages = torch.cat([row[:count] for row, count in zip(tables, counts.tolist(), strict=True)])
    return indptr, pages.int(), ((lengths - 1) % block + 1).int()


def flashinfer_decode() -> Callable:
    _flashinfer()
    return lambda q, k, v, wrapper: wrapper.run(q, (k, v))


def plan_decode(q: Tensor, k: Tensor, v: Tensor, tables: Tensor, lengths: Tensor) -> tuple:
    workspace = torch.zeros(WORKSPACE, dtype=torch.uint8, device=q.device)
    wrapper = _flashinfer().BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD", use_tensor_cores=True)
    wrapper.plan(*_pages(tables, lengths, k.shape[1]), q.shape[1], k.shape[2], q.shape[2], k.shape[1], q_data_type=q.dtype, kv_data_type=k.dtype)
    return q, k, v, wrapper


def plan_prefill(q: Tensor, k: Tensor, v: Tensor, tables: Tensor, cu_q: Tensor, lengths: Tensor) -> tuple:
    workspace = torch.zeros(WORKSPACE, dtype=torch.uint8, device=q.device)
    wrapper = _flashinfer().BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD")
    wrapper.plan(
        cu_q, *_pages(tables, lengths, k.shape[1]), q.shape[1], k.shape[2], q.shape[2], k.shape[1], causal=True, q_data_type=q.dtype,
        kv_data_type=k.dtype,
    )  # fmt: skip
    return q, k, v, wrapper
