"""What paged prefill's tiles, its pipeline and its tiles without a mask are worth, at D = 128 beside the dense kernel on the same keys.

Run: python benchmarks/paged_prefill_tiles.py [FOLDER]        half a minute on an H200
"""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from course_lib import recorded

H, H_KV, D, BLOCK = 32, 8, 128, 16
PROBLEMS = ((4, 4096, 4096), (8, 512, 8192), (32, 5, 8192))  # requests, queries of each, keys of each
NAMES = ("BLOCK_M", "BLOCK_N", "num_warps", "num_stages")
TILES = [
    dict(zip(NAMES, sizes, strict=True))
    for sizes in (
        *((128, 64, 8, stages) for stages in (3, 5, 7, 9)), (128, 128, 8, 3), (128, 128, 8, 5), (64, 64, 4, 5), (64, 64, 4, 7), (32, 64, 4, 5),
        (32, 64, 4, 7), (16, 64, 4, 5),
    )
]  # fmt: skip


def drawn(B: int, n: int, N: int, careful: bool = False) -> tuple[torch.Tensor, ...]:
    """q, k_cache, v_cache, tables, cu_q, lengths. careful: the first entry of each table names no block, so that every tile takes a mask."""
    g = torch.Generator("cuda").manual_seed(0)
    q = torch.randn(B * n, H, D, device="cuda", dtype=torch.bfloat16, generator=g)
    k, v = (torch.randn(B * N // BLOCK, BLOCK, H_KV, D, device="cuda", dtype=torch.bfloat16, generator=g) for _ in "kv")
    tables = torch.randperm(B * N // BLOCK, device="cuda", generator=g).int().view(B, -1)
    tables[:, 0] = -1 if careful else tables[:, 0]
    cu_q = (torch.arange(B + 1, device="cuda") * n).int()
    return q, k, v, tables, cu_q, torch.full((B,), N, device="cuda", dtype=torch.int32)


def compiled(config: dict) -> bool:
    """Whether these tiles fit; leaves the compiled kernel in Triton's cache."""
    from triton.runtime.errors import OutOfResources

    from kernels.paged_prefill import paged_prefill

    try:
        paged_prefill(*drawn(1, 64, 256), 64, config=config)
    except OutOfResources:
        return False
    return True


def measured(call, problem: tuple[int, int, int]) -> float:
    """TFLOP/s of the pairs that attend."""
    from triton.testing import do_bench_cudagraph

    B, n, N = problem
    pairs = B * H * (n * (N - n) + n * (n + 1) // 2)
    return 4 * D * pairs / do_bench_cudagraph(call, rep=20) / 1e9


def dense(problem: tuple[int, int, int]) -> float:
    from kernels.flash_forward import flash_attention_forward

    B, n, N = problem
    q, k, v = (torch.randn(B, heads, rows, D, device="cuda", dtype=torch.bfloat16) for heads, rows in ((H, n), (H_KV, N), (H_KV, N)))
    return measured(lambda: flash_attention_forward(q, k, v, causal=True), problem)


def main() -> None:
    from kernels.paged_prefill import paged_prefill

    with ProcessPoolExecutor(min(len(TILES), os.cpu_count() or 1), mp_context=multiprocessing.get_context("spawn")) as pool:
        fitting = [config for config, fits in zip(TILES, pool.map(compiled, TILES), strict=True) if fits]
    names = [f"{B} x {n:,} of {N:,}" for B, n, N in PROBLEMS]
    rows = [{"kernel": "dense", **dict.fromkeys(NAMES, ""), "mask": "edges", **dict(zip(names, map(dense, PROBLEMS), strict=True))}]
    for careful in (False, True):
        inputs = [drawn(*problem, careful) for problem in PROBLEMS]
        for config in fitting:
            rates = [measured(lambda i=i, p=p, c=config: paged_prefill(*i, p[1], config=c), p) for i, p in zip(inputs, PROBLEMS, strict=True)]
            rows.append({"kernel": "paged", **config, "mask": "every tile" if careful else "edges", **dict(zip(names, rates, strict=True))})
            print(rows[-1], flush=True)
    title = "Paged prefill, bf16, GQA 32/8, D = 128, blocks of 16: TFLOP/s by tiles, and with a mask on every tile"
    print(recorded.write("paged_prefill_tiles", title, rows, Path(sys.argv[1]) if sys.argv[1:] else recorded.RESULTS))


if __name__ == "__main__":
    main()
