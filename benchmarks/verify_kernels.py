"""Thousands of random shapes, strides and values through every kernel on this GPU, against float64 under the course's tolerance.

Run: python benchmarks/verify_kernels.py [FOLDER]                  about ten minutes on an H200; writes the record
     python benchmarks/verify_kernels.py --seconds 30              at most 30 seconds a kernel
     python benchmarks/verify_kernels.py --device cpu --cases 20   tiny shapes in the interpreter: does this script work?
     PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck python benchmarks/verify_kernels.py --sanitize

Compiling is what takes the time: a new kind of stride is a new compilation. So cases come in kinds (dtype, head size, causal or not,
layout, lengths that are multiples of 16 or odd), and processes share the kinds. A sample runs 20 times and must give the same bits.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import random
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

FLASH = ("flash_forward", "flash_forward_two_tiles", "flash_forward_descriptors")
GRADIENTS = ("attention_delta", "flash_backward_dkdv", "flash_backward_dq", "flash_attention")
VARIANTS = (
    *("flash_window", "flash_window_backward", "flash_window_attention"),
    *("flash_varlen", "flash_varlen_backward", "flash_varlen_attention"),
    "flash_score_mod",
)
ATTENTION = (*FLASH, *GRADIENTS, *VARIANTS)
OTHERS = ("vector_add", "softmax_rows", "softmax_long_rows", "rms_norm", "swiglu", "matmul")
COUNTS = {**dict.fromkeys(ATTENTION, 2100), **dict.fromkeys(OTHERS, 400)}
HEAD_SIZES = (16, 40, 64, 80, 96, 128, 256)
HEADS = ((4, 4), (6, 2), (8, 1))  # query heads, K/V heads
LAYOUTS = ("contiguous", "heads last", "transposed", "sliced", "every other", "expanded")
VALUES = ("normal", "rising maximum", "hot key", "large logits", "very negative", "offset")
TINY = {"BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 4, "num_stages": 1}


def cases(kernel: str, count: int, seed: int, small: bool = False, ones: float = 0.02) -> list[dict]:
    """Random cases as plain data, a kind at a time. Small ones are for the interpreter and for a sanitizer. ones: how many lengths are 1."""
    draw = random.Random(f"{seed} {kernel}")
    dtypes = ("fp16", "fp32") if small else ("fp16", "bf16", "fp32")
    if kernel in ATTENTION:
        kinds = [{"dtype": dtype, "D": D, "causal": causal} for D in HEAD_SIZES for dtype in dtypes for causal in (False, True)]
    else:
        kinds = [{"dtype": dtype} for dtype in dtypes for _ in range(14)]
    kinds = [
        {
            **kind,
            "layouts": [draw.choice(LAYOUTS) for _ in range(3 if kernel in FLASH or kernel not in ATTENTION else 4)],
            "aligned": draw.random() < 0.4,
            "heads": draw.choice(HEADS),
        }
        for kind in kinds
        for _ in range(3 if kernel in FLASH else 1)
    ]
    draw.shuffle(kinds)
    found = [{**kinds[i % len(kinds)], "kernel": kernel, "kind": i % len(kinds), "seed": draw.randrange(2**31)} for i in range(count)]
    for case in found:
        case |= _sizes(kernel, case, draw, small, ones)
    return found


def _length(draw: random.Random, most: int, aligned: bool, ones: float = 0.02) -> int:
    """Odd, or a multiple of 16; short ones as often as long ones. A length of 1 may be compiled in, so that it is rare unless asked for."""
    n = 1 if draw.random() < ones else max(3, int(most ** draw.random()))
    return max(1, -(-n // 16)) * 16 if aligned else n // 2 * 2 + 1


def _sizes(kernel: str, case: dict, draw: random.Random, small: bool, ones: float) -> dict:
    from benchmarks import variant_trials

    aligned = case["aligned"] and ones < 0.1
    if kernel in ATTENTION:
        most = 60 if small else 1500 if kernel in FLASH or draw.random() < 0.1 else 500
        n_q, n_kv = (_length(draw, most, aligned, ones) for _ in "qk")
        n_kv = n_q if draw.random() < 0.3 else n_kv
        scale = round(draw.uniform(0.05, 1.5), 3) if draw.random() < 0.3 else None
        more = variant_trials.sizes(kernel, draw, lambda most: _length(draw, most, aligned, ones), small) if kernel in VARIANTS else {}
        return {
            **more,
            "B": draw.choice((1, 2)) if small else draw.choice((1, 2, 3)),
            "N_Q": n_q,
            "N_KV": n_kv,
            "scale": scale,
            "values": draw.choice(VALUES),
        }
    if kernel == "matmul":
        return {name: _length(draw, 60 if small else 900, aligned) for name in "MNK"}
    if kernel == "vector_add":
        return {"N": _length(draw, 20_000 if small else 4_000_000, aligned)}
    most = 700 if small else 200_000 if kernel in ("softmax_long_rows", "swiglu") else importlib.import_module(f"kernels.{kernel}").MAX_WIDTH
    n = min(most, _length(draw, most, aligned))
    return {"M": _length(draw, 20 if small else max(2, min(3000, 4_000_000 // n)), False), "N": n}


# ---------------------------------------------------------------- one case


def run(case: dict, device: str, repeats: int = 0) -> dict:
    """{"wrong": sentences, "share": of the allowed error, "mean": multiple of plain PyTorch's, "bits": whether repeated calls gave the same bits}.

    The rule on single elements decides. The one on the mean is reported, as the median over all cases: of thousands of drawn cases, some have
    few independent errors (one logit of 300 rounds, and moves a whole row), and their mean is luck.
    """
    import torch

    from benchmarks import kernel_trials as trials

    call, inputs, (reference, orders) = _prepared(case, device)
    before = [x.clone() for x in inputs]
    got = call()
    wrong, share = trials.verdict(got, reference, orders, rms=False)
    if not all(torch.equal(x.isnan(), y.isnan()) and torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in zip(inputs, before, strict=True)):
        wrong.append("an input was changed")
    parts = got if isinstance(got, tuple) else (got,)
    same = all(torch.equal(x, y) for _ in range(repeats) for x, y in zip(parts, _tuple(call()), strict=True))
    return {"wrong": wrong, "share": share, "mean": trials.mean_errors(got, reference, orders), "bits": same}


def _tuple(got) -> tuple:
    return got if isinstance(got, tuple) else (got,)


def _prepared(case: dict, device: str):
    """(the call, its tensors, (reference, plain orders))."""
    import torch

    from benchmarks import gradient_trials, variant_trials
    from benchmarks import kernel_trials as trials

    kernel, dtype = case["kernel"], {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[case["dtype"]]
    module, g = importlib.import_module(f"kernels.{kernel}"), torch.Generator(device).manual_seed(case["seed"])

    def drawn(i: int, *shape: int):
        return torch.randn(shape, generator=g, device=device), case["layouts"][i]

    def cast(x, layout):
        return trials.laid_out(x.to(dtype), layout)

    if kernel in ATTENTION:
        pairs = [drawn(i, *shape) for i, shape in enumerate(variant_trials.shapes(case)[: len(case["layouts"])])]
        flavoured = [*_flavoured(case["values"], *(x for x, _ in pairs[:3])), *(x for x, _ in pairs[3:])]
        tensors = [cast(x, layout) for x, (_, layout) in zip(flavoured, pairs, strict=True)]
        config = {"config": TINY} if device == "cpu" else {}
        if kernel in GRADIENTS or kernel in VARIANTS:
            return (gradient_trials if kernel in GRADIENTS else variant_trials).prepared(case, module, tensors, config)
        options = {"causal": case["causal"], "scale": case["scale"]}
        return lambda: module.flash_attention_forward(*tensors, **options, **config), tensors, trials.attention_trial(*tensors, **options)
    shapes = {
        "vector_add": lambda: [(case["N"],)] * 2,
        "matmul": lambda: [(case["M"], case["K"]), (case["K"], case["N"])],
        "rms_norm": lambda: [(case["M"], case["N"]), (case["N"],)],
        "swiglu": lambda: [(case["M"], case["N"])] * 2,
    }.get(kernel, lambda: [(case["M"], case["N"])])()
    tensors = [cast(*drawn(i, *shape)) for i, shape in enumerate(shapes)]
    trial = getattr(trials, "softmax_trial" if kernel.startswith("softmax") else f"{kernel}_trial")
    return lambda: getattr(module, kernel)(*tensors), tensors, trial(*tensors)


def _flavoured(values: str, q, k, v):
    """What makes a forward pass fail in particular: maxima that rise, that jump at the end, logits far from 0, a V far from 0."""
    import torch

    if k.dim() == 3:  # packed: the keys of all sequences as those of one
        return tuple(x[0].transpose(0, 1) for x in _flavoured(values, *(x.transpose(0, 1)[None] for x in (q, k, v))))
    if values == "rising maximum":
        return q.abs(), k.abs() * torch.linspace(0.1, 4, k.shape[2], device=k.device)[:, None], v
    if values == "hot key" and k.shape[2]:
        k = k.clone()
        k[:, :, -1] = 6 * k[:, :, -1].abs()
        return q.abs(), k, v
    if values == "large logits":
        return q * 6, k * 6, v
    if values == "very negative":
        return q.abs() * 4 + 1, -k.abs() * 4 - 1, v
    return (q, k, v * 3 + 20) if values == "offset" else (q, k, v)


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
    wanted = cases(kernel, count, arguments.seed, small=arguments.device == "cpu" or arguments.sanitize, ones=arguments.ones)
    deadline = time.time() + arguments.seconds
    if pool is None:
        return run_share(wanted, arguments.device, deadline, 4)
    by_kind: list[list[dict]] = [[] for _ in range(arguments.processes)]
    for case in wanted:
        by_kind[case["kind"] % len(by_kind)].append(case)
    jobs = [pool.submit(run_share, share, arguments.device, deadline, 10) for share in by_kind if share]
    return [result for job in jobs for result in job.result()]


def summary(kernel: str, results: list[dict]) -> list[dict]:
    """A row for each dtype."""
    rows = []
    for dtype in dict.fromkeys(result["case"]["dtype"] for result in results):
        mine = [result for result in results if result["case"]["dtype"] == dtype]
        worst = max(result["share"] for result in mine)
        repeated = [result for result in mine if result["repeated"]]
        rows.append(
            {
                "kernel": kernel,
                "dtype": dtype,
                "cases": len(mine),
                "failures": sum(bool(result["wrong"]) for result in mine),
                "largest error (% of what is allowed)": round(100 * worst, 1) if worst < 1e6 else 1e6,
                "mean error (median, x plain PyTorch)": round(statistics.median(result["mean"] for result in mine), 2),
                "mean error above 1.5x (not judged)": sum(result["mean"] > 1.5 for result in mine),
                "run 20 times": len(repeated),
                "other bits": sum(not result["bits"] for result in repeated),
            }
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="where the record goes; the committed results by default")
    parser.add_argument("--seconds", type=float, default=150.0, help="at most this long a kernel")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ones", type=float, default=0.02, help="the share of lengths that are 1: the compiler makes other code for some of them")
    parser.add_argument("--cases", type=int, default=0, help="this many a kernel")
    parser.add_argument("--kernels", nargs="*", default=[*ATTENTION, *OTHERS], choices=[*ATTENTION, *OTHERS])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--sanitize", action="store_true", help="5 small cases a kernel in this process, for compute-sanitizer; writes nothing")
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
        failures += [
            {"wrong": result["wrong"], "bits": result["bits"], **result["case"]} for result in results if result["wrong"] or not result["bits"]
        ]
        print(f"{kernel}: {len(results)} cases in {time.time() - began:.0f} s", flush=True)
        for row in rows[-3:]:
            print("   ", row if row["kernel"] == kernel else "", flush=True)
    if pool:
        pool.shutdown()
    for failure in failures[:20]:
        print("FAILED", json.dumps(failure))
    if not (arguments.sanitize or arguments.device == "cpu"):
        from course_lib import recorded

        folder = Path(arguments.folder) if arguments.folder else recorded.RESULTS
        title = "Random shapes, strides and values through every kernel, against float64"
        print(recorded.write("verify_kernels", title, rows, folder, details=failures[:200]))
    print(f"{sum(row['cases'] for row in rows)} cases, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
