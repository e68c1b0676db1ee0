"""What was tried for the backward pass and is not in kernels/: tensor descriptors for both kernels, and one kernel with five products.

Run: python benchmarks/backward_variants.py [SECONDS] [FOLDER]      on an H200, about two minutes; writes the record

`fused` adds dQ up in float32 by atomics, `fused_tma` by the copy engine; both change their bits from run to run. Whole tiles only, N a
multiple of 128, as many K/V heads as query heads. TFLOP/s count the products that a variant computes: 4 (dkdv), 3 (dq), 5 (fused).
"""

import itertools
import multiprocessing as mp
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
import triton  # noqa: E402
import triton.language as tl  # noqa: E402
from triton.tools.tensor_descriptor import TensorDescriptor  # noqa: E402

from course_lib import recorded  # noqa: E402


@triton.jit
def dkdv_tma(
    q_t,
    k_t,
    v_t,
    do_t,
    lse_ptr,
    delta_ptr,
    dk_t,
    dv_t,
    H,
    N,
    scale,
    scale_log2,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr,
):
    tiles = tl.cdiv(N, BLOCK_N)
    first = tl.program_id(0) % tiles * BLOCK_N
    bh = tl.program_id(0) // tiles
    base = bh * N
    keys = first + tl.arange(0, BLOCK_N)
    rows = tl.arange(0, BLOCK_M)
    k = k_t.load([base + first, 0])
    v = v_t.load([base + first, 0])
    dk = tl.zeros([BLOCK_N, D], tl.float32)
    dv = tl.zeros([BLOCK_N, D], tl.float32)
    lo = 0
    if CAUSAL:
        lo = first // BLOCK_M * BLOCK_M
    for start in range(lo, N, BLOCK_M):
        q = q_t.load([base + start, 0])
        lse = tl.load(lse_ptr + base + start + rows) * 1.4426950408889634
        s = tl.dot(k, q.T)
        p = tl.exp2(s * scale_log2 - lse[None, :])
        if CAUSAL:
            if start < first + BLOCK_N:
                p = tl.where(keys[:, None] <= start + rows[None, :], p, 0.0)
        do = do_t.load([base + start, 0])
        dv = tl.dot(p.to(do.dtype), do, dv)
        delta = tl.load(delta_ptr + base + start + rows)
        dp = tl.dot(v, do.T)
        ds = p * (dp - delta[None, :])
        dk = tl.dot(ds.to(q.dtype), q, dk)
    dk_t.store([base + first, 0], (dk * scale).to(q_t.dtype))
    dv_t.store([base + first, 0], dv.to(q_t.dtype))


@triton.jit
def dq_tma(
    q_t,
    k_t,
    v_t,
    do_t,
    lse_ptr,
    delta_ptr,
    dq_t,
    H,
    N,
    scale,
    scale_log2,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr,
):
    tiles = tl.cdiv(N, BLOCK_M)
    first = (tiles - 1 - tl.program_id(0) % tiles) * BLOCK_M
    base = tl.program_id(0) // tiles * N
    rows = first + tl.arange(0, BLOCK_M)
    keys = tl.arange(0, BLOCK_N)
    q = q_t.load([base + first, 0])
    do = do_t.load([base + first, 0])
    lse = tl.load(lse_ptr + base + rows) * 1.4426950408889634
    delta = tl.load(delta_ptr + base + rows)
    dq = tl.zeros([BLOCK_M, D], tl.float32)
    last = N
    if CAUSAL:
        last = first + BLOCK_M
    for start in range(0, last, BLOCK_N):
        k = k_t.load([base + start, 0])
        s = tl.dot(q, k.T)
        p = tl.exp2(s * scale_log2 - lse[:, None])
        if CAUSAL:
            if start + BLOCK_N > first:
                p = tl.where(start + keys[None, :] <= rows[:, None], p, 0.0)
        v = v_t.load([base + start, 0])
        dp = tl.dot(do, v.T)
        ds = p * (dp - delta[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq)
    dq_t.store([base + first, 0], (dq * scale).to(q_t.dtype))


@triton.jit
def fused(
    q_t,
    k_t,
    v_t,
    do_t,
    lse_ptr,
    delta_ptr,
    dk_t,
    dv_t,
    dq_t,
    dq_ptr,
    H,
    N,
    scale,
    scale_log2,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr,
    TMA_ADD: tl.constexpr,
):
    tiles = tl.cdiv(N, BLOCK_N)
    first = tl.program_id(0) % tiles * BLOCK_N
    base = tl.program_id(0) // tiles * N
    keys = first + tl.arange(0, BLOCK_N)
    rows = tl.arange(0, BLOCK_M)
    columns = tl.arange(0, D)
    k = k_t.load([base + first, 0])
    v = v_t.load([base + first, 0])
    dk = tl.zeros([BLOCK_N, D], tl.float32)
    dv = tl.zeros([BLOCK_N, D], tl.float32)
    lo = 0
    if CAUSAL:
        lo = first // BLOCK_M * BLOCK_M
    for start in range(lo, N, BLOCK_M):
        q = q_t.load([base + start, 0])
        lse = tl.load(lse_ptr + base + start + rows) * 1.4426950408889634
        s = tl.dot(k, q.T)
        p = tl.exp2(s * scale_log2 - lse[None, :])
        if CAUSAL:
            if start < first + BLOCK_N:
                p = tl.where(keys[:, None] <= start + rows[None, :], p, 0.0)
        do = do_t.load([base + start, 0])
        dv = tl.dot(p.to(do.dtype), do, dv)
        delta = tl.load(delta_ptr + base + start + rows)
        dp = tl.dot(v, do.T)
        ds = (p * (dp - delta[None, :])).to(q.dtype)
        dk = tl.dot(ds, q, dk)
        dq = tl.dot(ds.T, k)
        if TMA_ADD:
            dq_t.atomic_add([base + start, 0], dq)
        else:
            tl.atomic_add(dq_ptr + (base + start + rows).to(tl.int64)[:, None] * D + columns[None, :], dq, sem="relaxed")
    dk_t.store([base + first, 0], (dk * scale).to(q_t.dtype))
    dv_t.store([base + first, 0], dv.to(q_t.dtype))


def make(B, H, N, D):
    g = torch.Generator("cuda").manual_seed(0)
    return tuple(torch.randn(B, H, N, D, device="cuda", generator=g).bfloat16() for _ in range(4))


def prep(B, H, N, D, causal):
    from kernels.attention_delta import attention_delta
    from kernels.flash_forward import flash_attention_forward

    q, k, v, do = make(B, H, N, D)
    out, lse = flash_attention_forward(q, k, v, causal)
    return q, k, v, do, lse, attention_delta(out, do)


def desc(x, rows):
    return TensorDescriptor.from_tensor(x.view(-1, x.shape[-1]), [rows, x.shape[-1]])


def call(which, t, causal, cfg):
    q, k, v, do, lse, delta = t
    B, H, N, D = q.shape
    M, Nb = cfg["BLOCK_M"], cfg["BLOCK_N"]
    sc = D**-0.5
    common = dict(D=D, CAUSAL=causal, **cfg)
    if which == "dkdv":
        dk, dv = torch.empty_like(k), torch.empty_like(v)
        dkdv_tma[(N // Nb * B * H,)](
            desc(q, M), desc(k, Nb), desc(v, Nb), desc(do, M), lse, delta, desc(dk, Nb), desc(dv, Nb), H, N, sc, sc * 1.4426950408889634, **common
        )
        return dk, dv
    if which == "dq":
        dq = torch.empty_like(q)
        dq_tma[(N // M * B * H,)](
            desc(q, M), desc(k, Nb), desc(v, Nb), desc(do, M), lse, delta, desc(dq, M), H, N, sc, sc * 1.4426950408889634, **common
        )
        return dq
    dk, dv = torch.empty_like(k), torch.empty_like(v)
    dq = torch.zeros(q.shape, dtype=torch.float32, device="cuda")
    fused[(N // Nb * B * H,)](
        desc(q, M),
        desc(k, Nb),
        desc(v, Nb),
        desc(do, M),
        lse,
        delta,
        desc(dk, Nb),
        desc(dv, Nb),
        desc(dq, M),
        dq,
        H,
        N,
        sc,
        sc * 1.4426950408889634,
        TMA_ADD=which == "fused_tma",
        **common,
    )
    return dq.mul_(sc).bfloat16(), dk, dv


def configs(which, D):
    tiles = {"dkdv": [(32, 64), (64, 64), (64, 128), (32, 128), (128, 128)], "dq": [(64, 32), (64, 64), (128, 64), (128, 128)]}.get(
        which, [(64, 128), (64, 64), (32, 128), (128, 128)]
    )
    out = []
    for (m, n), w, s in itertools.product(tiles, (4, 8), (1, 2, 3)):
        if w == 4 and m * n > 64 * 64 * (2 if D == 64 else 1):
            continue
        if w == 8 and m * n < 64 * 64:
            continue
        out.append(dict(BLOCK_M=m, BLOCK_N=n, num_warps=w, num_stages=s))
    return out


def compile_one(job):
    which, D, causal, cfg = job
    try:
        t = prep(1, 16, 1024, D, causal)
        call(which, t, causal, cfg)
        torch.cuda.synchronize()
        return None
    except Exception as e:
        return f"{which} {D} {causal} {cfg}: {type(e).__name__} {str(e)[:100]}"


def main() -> None:
    began, limit = time.time(), float(sys.argv[1]) if len(sys.argv) > 1 else 90
    kinds = ("dkdv", "dq", "fused", "fused_tma")
    jobs = [(w, D, c, cfg) for w in kinds for D in (128, 64) for c in (False, True) for cfg in configs(w, D)]
    with mp.get_context("spawn").Pool() as pool:
        for problem in filter(None, pool.imap_unordered(compile_one, jobs, chunksize=1)):
            print(problem)
    rows = []
    for D, c, w in itertools.product((128, 64), (False, True), kinds):
        B, H, N = 4, 2048 // D, 4096
        tensors = prep(B, H, N, D, c)
        q, k, v, do = (x[:1, :2].float().requires_grad_() for x in tensors[:4])
        exact = torch.autograd.grad(torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=c), (q, k, v), do)
        wanted = {"dkdv": exact[1:], "dq": exact[:1]}.get(w, exact)
        flops = {"dkdv": 4, "dq": 3}.get(w, 5) * 2 * B * H * N * N * D * (0.5 if c else 1)
        found = []
        for cfg in configs(w, D):
            if time.time() - began > limit:
                break
            try:
                got = call(w, tensors, c, cfg)
                got = got if isinstance(got, tuple) else (got,)
                error = max(((a[:1, :2].float() - b).norm() / b.norm()).item() for a, b in zip(got, wanted, strict=True))
                ms = triton.testing.do_bench(lambda: call(w, tensors, c, cfg), warmup=15, rep=60, return_mode="median")  # noqa: B023
                found.append((flops / ms / 1e9, error, cfg))
            except triton.runtime.errors.OutOfResources:
                continue
        for rate, error, cfg in sorted(found, key=lambda one: -one[0])[:3]:
            rows.append({"D": D, "causal": "yes" if c else "no", "variant": w, "TFLOP/s": round(rate), "error": round(error, 5), **cfg})
            print(rows[-1], flush=True)
    title = "Variants of the backward pass that were tried, bf16, 16K tokens of width 2,048, N = 4,096: the three fastest tiles of each"
    print(recorded.write("backward_variants", title, rows, Path(sys.argv[2]) if len(sys.argv) > 2 else recorded.RESULTS))


if __name__ == "__main__":
    main()
