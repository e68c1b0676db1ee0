"""Thousands of random caches, tables and lengths through every kernel over a cache on this GPU, against float64 under the course's tolerance.

Run: python benchmarks/verify_decode.py [FOLDER]                   some minutes on an H200; writes the record
     python benchmarks/verify_decode.py --seconds 30               at most 30 seconds a kernel
     python benchmarks/verify_decode.py --device cpu --cases 20    tiny shapes in the interpreter: does this script work?
     PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck python benchmarks/verify_decode.py --sanitize

As benchmarks/verify_kernels.py, whose rows and rules these are: cases come in kinds, since a new kind is a new compilation, and
processes share the kinds. A sample runs 20 times and must give the same bits.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.verify_kernels import HEAD_SIZES, VALUES, _flavoured, _tuple, summary  # noqa: E402

COUNTS = {"decode_split": 2400, "paged_decode": 2400, "paged_prefill": 2400, "merge_splits": 400, "write_kv": 400, "rope": 400}
GROUPS = ((1, 1), (4, 4), (8, 2), (6, 1), (10, 2), (32, 8), (20, 1), (72, 1))  # query heads, K/V heads
BLOCKS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LAYOUTS = ("contiguous", "contiguous", "sliced", "every other", "heads last")
TINY = {"BLOCK_N": 16, "num_warps": 4, "num_stages": 1}


def cases(kernel: str, count: int, seed: int, small: bool = False) -> list[dict]:
    """Random cases as plain data, a kind at a time. Small ones are for the interpreter and for a sanitizer."""
    draw = random.Random(f"{seed} {kernel}")
    dtypes = ("fp16", "fp32") if small else ("fp16", "bf16", "fp32")
    kinds = [
        {
            "dtype": dtype, "D": D, "heads": draw.choice(GROUPS), "block": draw.choice(BLOCKS), "layouts": [draw.choice(LAYOUTS) for _ in range(3)],
            "few": draw.random() < 0.3,
        }
        for D in HEAD_SIZES for dtype in dtypes for _ in range(4)
    ]  # fmt: skip
    draw.shuffle(kinds)
    found = [{**kinds[i % len(kinds)], "kernel": kernel, "kind": i % len(kinds), "seed": draw.randrange(2**31)} for i in range(count)]
    for case in found:
        B, most = draw.choice((1, 2, 3, 5)), 70 if small else 3000
        case["lengths"] = [0 if draw.random() < 0.08 else max(1, int(most ** draw.random())) for _ in range(B)]
        longest = 3 if case["few"] else 40 if small else 700
        case["counts"] = [min(max(1, int(longest ** draw.random())), length) if draw.random() < 0.9 else 0 for length in case["lengths"]]
        case["splits"] = draw.choice((None, None, 1, 2, 3, 7, 40))
        case["scale"] = round(draw.uniform(0.05, 1.5), 3) if draw.random() < 0.3 else None
        case["values"] = draw.choice(VALUES)
    return found


# ---------------------------------------------------------------- one case


def run(case: dict, device: str, repeats: int = 0) -> dict:
    """{"wrong": sentences, "share": of the allowed error, "mean": multiple of plain PyTorch's, "bits": whether repeated calls gave the same bits}."""
    import torch

    from benchmarks import kernel_trials as trials

    call, inputs, (reference, orders) = PREPARE[case["kernel"]](case, device)
    before = [x.clone() for x in inputs]
    got = call()
    wrong, share = trials.verdict(got, reference, orders, rms=False)
    if not all(torch.equal(x.isnan(), y.isnan()) and torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in zip(inputs, before, strict=True)):
        wrong.append("an input was changed")
    same = all(torch.equal(x, y) for _ in range(repeats) for x, y in zip(_tuple(got), _tuple(call()), strict=True))
    return {"wrong": wrong, "share": share, "mean": trials.mean_errors(got, reference, orders), "bits": same}


class Drawn:
    """The tensors of a case: q [rows, H, D]; k, v [B, H_KV, N, D]; pages and tables where the cache is paged."""

    def __init__(self, case: dict, device: str, rows: int):
        import torch

        self.dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[case["dtype"]]
        self.generator = torch.Generator(device).manual_seed(case["seed"])
        self.case, self.device, self.layouts = case, device, case["layouts"]
        (self.H, self.H_KV), self.D, self.N = case["heads"], case["D"], max(1, *case["lengths"])
        q, k, v = self.normal(rows, self.H, self.D), *(self.normal(len(case["lengths"]), self.H_KV, self.N, self.D) for _ in "kv")
        self.q, self.k, self.v = (x.to(self.dtype) for x in _flavoured(case["values"], q, k, v))

    def normal(self, *shape: int):
        import torch

        return torch.randn(shape, generator=self.generator, device=self.device)

    def laid(self, *tensors):
        from benchmarks import kernel_trials as trials

        return [trials.laid_out(x, layout) for x, layout in zip(tensors, self.layouts, strict=False)]

    def int32(self, numbers):
        import torch

        return torch.tensor(list(numbers), dtype=torch.int32, device=self.device)

    def options(self, **more) -> dict:
        return {"scale": self.case["scale"], **more, **({"config": TINY} if self.device == "cpu" else {})}


def _decode_split(case: dict, device: str):
    from benchmarks import cache_trials as caches
    from kernels.decode_split import decode_split

    x = Drawn(case, device, len(case["lengths"]))
    tensors = x.laid(x.q, caches.dense_cache(x.k, case["lengths"]), caches.dense_cache(x.v, case["lengths"]))
    lengths = x.int32(case["lengths"])
    wanted = caches.decode_trial(x.q, x.k, x.v, case["lengths"], case["scale"])
    return lambda: decode_split(*tensors, lengths, **x.options(num_splits=case["splits"])), tensors, wanted


def _paged_decode(case: dict, device: str):
    from benchmarks import cache_trials as caches
    from kernels.paged_decode import paged_decode

    x = Drawn(case, device, len(case["lengths"]))
    *pages, tables = caches.paged_cache(x.k, x.v, case["lengths"], case["block"], seed=case["seed"])
    tensors, lengths = x.laid(x.q, *pages), x.int32(case["lengths"])
    (out, _), orders = caches.decode_trial(x.q, x.k, x.v, case["lengths"], case["scale"])
    call = lambda: paged_decode(*tensors, tables, lengths, **x.options(num_splits=case["splits"]))  # noqa: E731
    return call, tensors, (out, [order[0] for order in orders])


def _paged_prefill(case: dict, device: str):
    from benchmarks import cache_trials as caches
    from kernels.paged_prefill import paged_prefill

    x, counts = Drawn(case, device, sum(case["counts"])), case["counts"]
    *pages, tables = caches.paged_cache(x.k, x.v, case["lengths"], case["block"], seed=case["seed"])
    tensors, cu_q, lengths = x.laid(x.q, *pages), x.int32([0, *itertools.accumulate(counts)]), x.int32(case["lengths"])
    wanted = caches.prefill_trial(x.q, x.k, x.v, counts, case["lengths"], case["scale"])
    options = x.options()
    options |= {"config": {"BLOCK_M": 16, **TINY}} if device == "cpu" else {}
    return lambda: paged_prefill(*tensors, tables, cu_q, lengths, max(counts), **options), tensors, wanted


def _merge_splits(case: dict, device: str):
    import torch

    from kernels.merge_splits import merge_splits

    x, S = Drawn(case, device, 1), case["splits"] or 90
    outs, lses = x.normal(S, 3, x.H, x.D), x.normal(S, 3, x.H) * 6
    lses = lses.masked_fill(x.normal(S, 3, x.H) > 1.2, -torch.inf)
    outs = outs.masked_fill((lses == -torch.inf)[..., None], torch.nan)

    def merged(dtype):
        """In some precision, with the weights from the log-sum-exp or from the maximum."""
        o, s = outs.nan_to_num().to(dtype), lses.to(dtype)
        top = s.amax(0).clamp_min(torch.finfo(dtype).min)
        whole = torch.logsumexp(s, 0)
        by_lse = (torch.where(s == -torch.inf, 0.0, (s - whole.clamp_min(torch.finfo(dtype).min)).exp())[..., None] * o).sum(0)
        weights = (s - top).exp()
        total = weights.sum(0)
        return [(by_lse, whole), ((weights[..., None] * o).sum(0) / total.clamp_min(1e-30)[..., None], top + total.log())]

    orders = merged(torch.float32)
    orders.append((orders[0][0], orders[1][1].masked_fill(orders[0][1] == -torch.inf, -torch.inf)))
    orders[1] = (orders[1][0], orders[2][1])
    return lambda: merge_splits(outs, lses), [outs, lses], (merged(torch.float64)[0], orders)


def _write_kv(case: dict, device: str):
    import torch

    from kernels.write_kv import write_kv

    T, blocks = sum(case["lengths"]) or 1, -(-(sum(case["lengths"]) + 40) // case["block"])
    x = Drawn({**case, "lengths": [T]}, device, 1)
    k, v = (x.normal(T, x.H_KV, x.D).to(x.dtype) for _ in "kv")
    slots = torch.randperm(blocks * case["block"], generator=torch.Generator().manual_seed(case["seed"]))[:T].to(device)
    slots[::7] = -1
    kept = slots >= 0
    pages = [x.normal(blocks, case["block"], x.H_KV, x.D).to(x.dtype) for _ in "kv"]
    wanted = [page.clone() for page in pages]
    for page, new in zip(wanted, (k, v), strict=True):
        page.flatten(0, 1)[slots[kept]] = new[kept]
    tensors = x.laid(k, v)

    def call():
        laid = x.laid(*(page.clone() for page in pages))
        write_kv(*tensors, *laid, slots)
        return tuple(page.contiguous() for page in laid)

    return call, tensors, (tuple(page.double() for page in wanted), [tuple(wanted)] * 3)


def _rope(case: dict, device: str):
    from benchmarks import cache_trials as caches
    from kernels.rope import apply_rope

    x, B = Drawn(case, device, 1), len(case["lengths"])
    tensor, turn = x.normal(B, x.H, x.N, x.D).to(x.dtype), x.normal(*((B, 1) if case["few"] else ()), x.N, x.D) * 9
    angles = [y.to(x.dtype if case["block"] > 8 else turn.dtype) for y in (turn.cos(), turn.sin())]
    laid = x.laid(tensor, *angles)
    return lambda: apply_rope(*laid).contiguous(), laid, caches.rope_trial(tensor, *angles)


PREPARE = {
    "decode_split": _decode_split,
    "paged_decode": _paged_decode,
    "paged_prefill": _paged_prefill,
    "merge_splits": _merge_splits,
    "write_kv": _write_kv,
    "rope": _rope,
}


# ---------------------------------------------------------------- all of them


def run_share(share: list[dict], device: str, deadline: float, repeat_every: int) -> list[dict]:
    """What came of these cases, up to the deadline; a crash of one is a failure of it."""
    if device == "cuda":
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False
    found = []
    for i, case in enumerate(share):
        if time.time() > deadline:
            break
        repeats = 19 if i % repeat_every == 0 else 0
        try:
            result = run(case, device, repeats)
        except Exception as error:
            result = {"wrong": [f"{type(error).__name__}: {str(error)[:300]}"], "share": float("inf"), "mean": 0.0, "bits": True}
        found.append({"case": case, "repeated": bool(repeats), **result})
    return found


def verify(kernel: str, arguments: argparse.Namespace, pool: ProcessPoolExecutor | None) -> list[dict]:
    """All results of one kernel. Processes share its kinds, so that each kind is compiled in one of them."""
    count = arguments.cases or (5 if arguments.sanitize else COUNTS[kernel])
    wanted = cases(kernel, count, arguments.seed, small=arguments.device == "cpu" or arguments.sanitize)
    deadline = time.time() + arguments.seconds
    if pool is None:
        return run_share(wanted, arguments.device, deadline, 4)
    by_kind: list[list[dict]] = [[] for _ in range(arguments.processes)]
    for case in wanted:
        by_kind[case["kind"] % len(by_kind)].append(case)
    jobs = [pool.submit(run_share, share, arguments.device, deadline, 10) for share in by_kind if share]
    return [result for job in jobs for result in job.result()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="where the record goes; the committed results by default")
    parser.add_argument("--seconds", type=float, default=120.0, help="at most this long a kernel")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=0, help="this many a kernel")
    parser.add_argument("--kernels", nargs="*", default=[*COUNTS], choices=[*COUNTS])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--sanitize", action="store_true", help="30 small cases in this process, for compute-sanitizer; writes nothing")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
    alone = arguments.sanitize or arguments.device == "cpu" or arguments.processes == 1
    pool = None if alone else ProcessPoolExecutor(arguments.processes, mp_context=multiprocessing.get_context("spawn"))
    rows, failures = [], []
    for kernel in arguments.kernels:
        began = time.time()
        results = verify(kernel, arguments, pool)
        rows += summary(kernel, results)
        failures += [{"wrong": one["wrong"], "bits": one["bits"], **one["case"]} for one in results if one["wrong"] or not one["bits"]]
        print(f"{kernel}: {len(results)} cases in {time.time() - began:.0f} s", flush=True)
        for row in [row for row in rows if row["kernel"] == kernel]:
            print("   ", row, flush=True)
    if pool:
        pool.shutdown()
    for failure in failures[:20]:
        print("FAILED", json.dumps(failure))
    if not (arguments.sanitize or arguments.device == "cpu"):
        from course_lib import recorded

        folder = Path(arguments.folder) if arguments.folder else recorded.RESULTS
        title = "Random caches, tables and lengths through every kernel over a cache, against float64"
        print(recorded.write("verify_decode", title, rows, folder, details=failures[:200]))
    print(f"{sum(row['cases'] for row in rows)} cases, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
