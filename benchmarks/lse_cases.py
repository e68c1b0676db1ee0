"""Seven cases in which a flash kernel's log-sum-exp was further from float64 than benchmarks/verify_kernels.py allows: where does it come from?

Run: python benchmarks/lse_cases.py [FOLDER]        a minute on the GPU that found them (an H200); writes the record
     python benchmarks/lse_cases.py --device cpu    the same numbers drawn by another generator, kernels interpreted: does this script work?

Two explanations are put to the test. Each gives a log-sum-exp of its own, and the one whose error is the kernel's is the cause.
*Products:* tensor cores add up the inner dimension in float32 and cut off what does not fit instead of rounding it, so that a sum of numbers of one
sign comes out too small, by more the longer it is. Raw scores from the tensor cores (torch.bmm, float32 out, padded so that cuBLAS takes them),
and everything after them in float64. *Arithmetic:* raw scores exact, and everything after them in float32 as the kernel does it, in powers of 2.
A third column is the same product as cuBLAS takes it unpadded: with one query or one key it may be no tensor-core product at all, and that is what
the check had compared with.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

_KEYS = ("kernel", "dtype", "D", "causal", "layouts", "heads", "seed", "B", "N_Q", "N_KV", "scale", "values")
CASES = [
    dict(zip(_KEYS, case, strict=True))
    for case in (
        ("flash_forward", "fp16", 256, True, ["sliced", "transposed", "expanded"], [8, 1], 2041095995, 1, 1, 1, None, "very negative"),
        ("flash_forward", "fp16", 128, False, ["transposed", "transposed", "sliced"], [6, 2], 1613326761, 1, 11, 1, None, "rising maximum"),
        ("flash_forward_two_tiles", "fp16", 256, True, ["contiguous", "transposed", "contiguous"], [4, 4], 590920009, 2, 1, 9, 0.422, "very negative"),
        ("flash_forward_two_tiles", "fp16", 256, True, ["contiguous", "expanded", "every other"], [4, 4], 910963584, 3, 1, 39, None, "hot key"),
        ("flash_forward_two_tiles", "fp16", 256, True, ["contiguous", "expanded", "every other"], [4, 4], 1245731108, 2, 1, 59, None, "very negative"),
        ("flash_forward_two_tiles", "fp16", 256, False, ["transposed", "transposed", "expanded"], [6, 2], 1156867424, 2, 21, 1, None, "rising maximum"),
        ("flash_forward_descriptors", "fp16", 256, True, ["expanded", "contiguous", "transposed"], [4, 4], 726197342, 3, 1, 69, 0.893, "rising maximum"),
    )
]
MILLION = 1e6


def cut_off(a, b, step: int = 8):
    """a @ b as a tensor core might: `step` products of the inner dimension are added exactly, then the sum is cut to float32's 24 bits. A model."""
    import torch

    a, b = a.double(), b.double()
    total = a.new_zeros(*a.shape[:-1], b.shape[-1])
    for start in range(0, a.shape[-1], step):
        mantissa, exponent = torch.frexp(total + a[..., start : start + step] @ b[..., start : start + step, :])
        total = torch.ldexp(torch.trunc(mantissa * 2**24) / 2**24, exponent)
    return total


def measure(case: dict, device: str) -> dict:
    """The error of the kernel's lse and of each explanation's, in millionths of the lse: positive is further from 0."""
    import torch

    from benchmarks import kernel_trials as trials
    from benchmarks.verify_kernels import _prepared

    call, (q, k, _), (reference, orders) = _prepared({**case, "heads": tuple(case["heads"])}, device)
    scale = q.shape[-1] ** -0.5 if case["scale"] is None else case["scale"]
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    mask, exact = trials.mask_of(q.shape[2], k.shape[2], case["causal"], device), reference[1]

    def hidden(raw):
        return raw if mask is None else raw.masked_fill(~mask, -torch.inf)

    def off(lse) -> float:
        seen = exact.isfinite() & (exact != 0)
        return round(float(((lse.double() - exact) / exact.abs() * exact.sign())[seen].median()) * MILLION, 2)

    def from_raw(raw) -> float:
        return off(torch.logsumexp(hidden(raw.double()) * scale, -1))

    def as_the_kernel_counts() -> float:
        scores = hidden(q.double() @ k.double().mT).float() * torch.tensor(scale * trials.LOG2_E, dtype=torch.float32, device=device)
        top = scores.amax(-1)
        return off((top + torch.log2(torch.exp2(scores - top[..., None]).sum(-1))) * torch.tensor(trials.LN_2, dtype=torch.float32, device=device))

    hardware = device == "cuda"
    return {
        "kernel": case["kernel"],
        "D": case["D"],
        "queries x keys": f"{case['N_Q']} x {case['N_KV']}",
        "kernel's lse": off(call()[1]),
        "tensor cores": from_raw(trials.by_tensor_cores(q, k.mT)) if hardware else "-",
        "unpadded product": from_raw(trials.product(q, k.mT)) if hardware else "-",
        "model: cut off every 8": from_raw(cut_off(q, k.mT)),
        "arithmetic alone": as_the_kernel_counts(),
        "float32 product": from_raw(q.float() @ k.float().mT),
        "of what is allowed (%)": round(100 * trials.verdict(call(), reference, orders, rms=False)[1]),
    }


def explained(rows: list[dict], by: str) -> int:
    """In how many cases the error of `by` is the kernel's, up to a third of it or a tenth of a millionth."""
    return sum(abs(row["kernel's lse"] - row[by]) <= max(0.1, abs(row["kernel's lse"]) / 3) for row in rows if row[by] != "-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="where the record goes; the committed results by default")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
    import torch

    from course_lib import recorded

    torch.backends.cuda.matmul.allow_tf32 = False
    rows = []
    for case in CASES:
        rows.append(measure(case, arguments.device))
        print(rows[-1], flush=True)
    for by in ("tensor cores", "unpadded product", "arithmetic alone"):
        if rows[0][by] != "-":
            print(f"{by}: explains {explained(rows, by)} of {len(rows)}")
    if arguments.device == "cuda":
        title = "Median error of the log-sum-exp, in millionths of it (negative: nearer to 0), and of what could explain it"
        print(recorded.write("lse_cases", title, rows, Path(arguments.folder) if arguments.folder else recorded.RESULTS))


if __name__ == "__main__":
    main()
