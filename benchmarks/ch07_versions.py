"""What versions 2, 3 and 4 changed, as far as one H200 shows it: waves, occupancy, descriptors, masks against FlexAttention, FP8.

Run: python benchmarks/ch07_versions.py [FOLDER]   (a CUDA GPU, about 90 s; on a CPU it tries every part on tiny shapes and writes
nothing unless a FOLDER is given). A part that fails is written down with its error; one that would start after LATEST seconds is left out.
"""

import math
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from course_lib import hardware  # noqa: E402

hardware.tier()  # before anything imports triton

import torch  # noqa: E402
import triton  # noqa: E402
import triton.language as tl  # noqa: E402

from course_lib import bench, oracles, peers, races_resources, recorded  # noqa: E402
from kernels import flash_forward, flash_forward_descriptors, flash_score_mod, flash_varlen, flash_window  # noqa: E402

GPU = torch.cuda.is_available()
DEVICE, DTYPE = ("cuda", torch.bfloat16) if GPU else ("cpu", torch.float32)
LATEST = 80.0  # seconds after which no part begins
D = 128 if GPU else 16
CONFIG = {"BLOCK_M": 128, "BLOCK_N": 128, "num_warps": 8, "num_stages": 3}  # the plain kernel's own on an H200
plain = flash_forward.flash_attention_forward


def seconds(call: Callable[[], object]) -> float:
    """The median of a call: on a GPU by events, the L2 cleared between the runs."""
    if GPU:
        return triton.testing.do_bench(call, warmup=15, rep=50, return_mode="median") / 1e3
    return bench.time_call(call, repeats=3).median


def rate(call: Callable[[], object], pairs: float, heads: int, d: int = D) -> float:
    """TFLOP/s by the pairs of query and key that count: 4 D operations each."""
    return 4 * d * pairs * heads / seconds(call) / 1e12


def tensors(b: int, h: int, n_q: int, n_kv: int | None = None, d: int = D) -> tuple[torch.Tensor, ...]:
    g = torch.Generator(DEVICE).manual_seed(7)
    return tuple(torch.randn(b, h, n, d, device=DEVICE, dtype=DTYPE, generator=g) for n in (n_q, n_kv or n_q, n_kv or n_q))


# ---------------------------------------------------------------- the parts: each returns rows


def waves() -> list[dict]:
    """8 heads, N_KV fixed, N_Q growing: the number of programs alone changes."""
    n_kv, rows = (4096, range(512, 6657, 256)) if GPU else (64, (128, 256))
    found = []
    for n_q in rows:
        q, k, v = tensors(1, 8, n_q, n_kv)
        call = partial(plain, q, k, v, config=CONFIG)
        found.append({"N": n_q, "programs": 8 * math.ceil(n_q / 128), "TFLOP/s": rate(call, n_q * n_kv, 8)})
    best = max(row["TFLOP/s"] for row in found)
    return [{**row, "share of the best": row["TFLOP/s"] / best} for row in found]


def occupancy() -> list[dict]:
    """The plain kernel with other tiles, warps and stages: what it takes of a multiprocessor, and how fast it is."""
    n, heads = (8192, 16) if GPU else (128, 1)
    q, k, v = tensors(1, heads, n)
    found = []
    for block_m, block_n, warps, stages in ((128, 128, 8, 3), (128, 64, 8, 3), (128, 64, 4, 3), (64, 64, 4, 3), (64, 64, 4, 2), (64, 32, 4, 2)):
        config = {"BLOCK_M": block_m, "BLOCK_N": block_n, "num_warps": warps, "num_stages": stages}
        call = partial(plain, config=config)
        taken = races_resources.resources(call, (q, k, v)) if GPU else None
        row = {"tile": f"{block_m} x {block_n}", "warps": warps, "stages": stages}
        if taken:
            row |= {"registers": taken.registers, "spills": taken.spills, "shared (KiB)": taken.shared / 1024, "programs a multiprocessor": taken.fit}
            row |= {"held by": taken.held_by}
        found.append({**row, "TFLOP/s": rate(lambda call=call: call(q, k, v), n * n, heads)})
    return found


def descriptors() -> list[dict]:
    """Pointers against tensor descriptors (TMA): registers and speed."""
    n, heads, found = *((8192, 16) if GPU else (128, 1)), []
    q, k, v = tensors(1, heads, n)
    for causal in (False, True):
        pairs = n * (n + 1) / 2 if causal else n * n
        for name, module in (("pointers", flash_forward), ("descriptors", flash_forward_descriptors)):
            call = partial(module.flash_attention_forward, causal=causal)
            taken = races_resources.resources(call, (q, k, v)) if GPU else None
            row = {"kernel": name, "causal": "yes" if causal else "no", "registers": taken.registers if taken else "-"}
            found.append({**row, "TFLOP/s": rate(lambda call=call: call(q, k, v), pairs, heads)})
    return found


def flex() -> list[dict]:
    """The course's kernels against FlexAttention, compiled, with the same mask; operations are those of the pairs that count."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    n, heads, window = (16384, 16, 1024) if GPU else (96, 2, 20)
    q, k, v = tensors(1, heads, n)
    lengths = [n // 2, n // 8, n // 4, n // 8]
    owner = torch.repeat_interleave(torch.arange(4, device=DEVICE), torch.tensor(lengths, device=DEVICE))
    cu = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32, device=DEVICE)
    slopes = 2.0 ** (-8 * torch.arange(1, heads + 1, device=DEVICE) / heads)
    packed = tuple(x[0].transpose(0, 1).contiguous() for x in (q, k, v))

    def causal(b, h, i, j):
        return i >= j

    def near(b, h, i, j):
        return (i >= j) & (i - j < window)

    def documents(b, h, i, j):
        return (i >= j) & (owner[i] == owner[j])

    def alibi(score, b, h, i, j):
        return score - slopes[h] * (i - j)

    def unpacked(out):
        return out.transpose(0, 1)[None]

    triangle = n * (n + 1) / 2
    cases = {
        "causal": (lambda: plain(q, k, v, causal=True)[0], causal, None, triangle),
        f"window {window:,}": (
            lambda: flash_window.flash_window_forward(q, k, v, window)[0],
            near,
            None,
            triangle - (n - window) * (n - window + 1) / 2,
        ),
        "4 documents, causal": (
            lambda: unpacked(flash_varlen.flash_varlen_forward(*packed, cu, cu, max(lengths), max(lengths), causal=True)[0]),
            documents,
            None,
            sum(m * (m + 1) / 2 for m in lengths),
        ),
        "ALiBi, causal": (lambda: flash_score_mod.flash_score_mod_forward(q, k, v, slopes=slopes)[0], causal, alibi, triangle),
    }
    found, full = [], None
    for case, (ours, mask_mod, score_mod, pairs) in cases.items():
        if GPU:
            peers.fresh_compiler()
        block_mask = create_block_mask(mask_mod, None, None, n, n, device=DEVICE)
        attend = torch.compile(flex_attention, dynamic=False) if GPU else flex_attention
        theirs = partial(attend, q, k, v, score_mod=score_mod, block_mask=block_mask)
        apart = oracles.max_error(ours().float(), theirs().float())
        mine = rate(ours, pairs, heads)
        row = {"case": case, "N": n, "course (TFLOP/s)": mine, "course (ms)": 4 * D * pairs * heads / mine / 1e9}
        row["FlexAttention (TFLOP/s)"] = rate(theirs, pairs, heads)
        full = full or row["course (ms)"]
        found.append(
            {**row, "course / FlexAttention": mine / row["FlexAttention (TFLOP/s)"], "causal takes, times": full / row["course (ms)"], "apart": apart}
        )
    return found


def padding() -> list[dict]:
    """Equal tokens: packed sequences against the dense kernel, and against the same ones padded."""
    heads = 16 if GPU else 1
    found = []
    for lengths in ([4096] * 4, [7000, 900, 5000, 100, 3000, 384]) if GPU else ([32] * 2, [40, 8, 16]):
        total, longest = sum(lengths), max(lengths)
        q, k, v = (x[0].transpose(0, 1).contiguous() for x in tensors(1, heads, total))
        cu = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32, device=DEVICE)
        pairs = sum(n * (n + 1) / 2 for n in lengths)
        dense = tensors(len(lengths), heads, longest)
        row = {"lengths": ", ".join(map(str, lengths))}
        row["packed (TFLOP/s)"] = rate(lambda: flash_varlen.flash_varlen_forward(q, k, v, cu, cu, longest, longest, causal=True), pairs, heads)  # noqa: B023
        row["padded (TFLOP/s)"] = rate(lambda: plain(*dense, causal=True), pairs, heads)  # noqa: B023
        found.append({**row, "packed / padded": row["packed (TFLOP/s)"] / row["padded (TFLOP/s)"]})
    return found


def versions() -> list[dict]:
    """FlashAttention-2 (torch's flash backend), the course's two files, FlashAttention-3 where its library is there."""
    found = []
    for d, causal in ((64, False), (128, False), (128, True)) if GPU else ():
        n, heads = 16384, 2048 // d
        q, k, v = tensors(1, heads, n, d=d)
        pairs = n * (n + 1) / 2 if causal else n * n
        row: dict = {"D": d, "causal": "yes" if causal else "no", "N": n}
        ways = {"FA2": lambda causal=causal: peers.sdpa("FLASH_ATTENTION", causal), "FA3": lambda causal=causal: peers.flash_attention_3(causal)}
        ways |= {"plain": lambda causal=causal: partial(plain, causal=causal)}
        ways |= {"descriptors": lambda causal=causal: partial(flash_forward_descriptors.flash_attention_forward, causal=causal)}
        for name, made in ways.items():
            try:
                call = made()
                inputs = peers.rows_of_tokens(q, k, v) if name == "FA3" else (q, k, v)  # it takes [B, N, H, D]
                row[f"{name} (TFLOP/s)"] = rate(lambda: call(*inputs), pairs, heads, d)  # noqa: B023
            except Exception as error:
                row[f"{name} (TFLOP/s)"] = f"-: {str(error)[:60]}"
        fast, slow = row["FA3 (TFLOP/s)"], row["FA2 (TFLOP/s)"]
        found.append({**row, "FA3 / FA2": fast / slow if isinstance(fast, float) and isinstance(slow, float) else "-"})
    return found


@triton.jit
def fp8_kernel(q_ptr, k_ptr, v_ptr, out_ptr, N, scale, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, P: tl.constexpr):
    """Whole tiles, one head after another, no mask: q, k [H, N, D]; v [H, D, N] (its keys neighbours, as the 8-bit products want them)."""
    dims = tl.arange(0, D)
    head = tl.program_id(1).to(tl.int64) * N * D
    rows, keys = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    q = tl.load(q_ptr + head + rows[:, None] * D + dims[None, :])  # [BLOCK_M, D]
    row_max, row_sum = tl.full([BLOCK_M], float("-inf"), tl.float32), tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, D], tl.float32)
    for start in range(0, N, BLOCK_N):
        k = tl.load(k_ptr + head + (start + keys)[:, None] * D + dims[None, :])  # [BLOCK_N, D]
        s = tl.dot(q, k.T)  # [BLOCK_M, BLOCK_N]
        new_max = tl.maximum(row_max, tl.max(s, 1) * scale)
        p = tl.exp2(s * scale - new_max[:, None])
        shrink = tl.exp2(row_max - new_max)
        row_sum, row_max = row_sum * shrink + tl.sum(p, 1), new_max
        v = tl.load(v_ptr + head + dims[:, None] * N + (start + keys)[None, :])  # [D, BLOCK_N]
        acc = tl.dot((p * P).to(v.dtype), v.T, acc * shrink[:, None])
    out = acc / (row_sum * P)[:, None]
    tl.store(out_ptr + head + rows[:, None] * D + dims[None, :], out.to(out_ptr.dtype.element_ty))


def fp8() -> list[dict]:
    """The same loop in bf16 and in e4m3, the best of a few tiles each, with the error against float64 on a part of the rows."""
    n, heads, found = *((8192, 16) if GPU else (64, 1)), []
    q, k, v = (x[0] for x in tensors(1, heads, n))
    exact = oracles.attention(*(x[None, :1, :rows].double() for x, rows in ((q, 64), (k, n), (v, n))))[0]
    for dtype in (DTYPE, torch.float8_e4m3fn) if GPU else (DTYPE,):
        p_scale = 256.0 if dtype == torch.float8_e4m3fn else 1.0  # exp2 gives at most 1: use e4m3's range
        inputs = (q.to(dtype), k.to(dtype), v.mT.contiguous().to(dtype))
        out, best = torch.empty_like(q), {}
        for block_m, block_n, warps, stages in ((128, 128, 8, 3), (128, 64, 8, 3), (128, 128, 8, 2), (64, 128, 4, 3)) if GPU else ((32, 32, 4, 1),):

            def call(block_m=block_m, block_n=block_n, warps=warps, stages=stages, inputs=inputs, out=out, p_scale=p_scale):
                grid = (n // block_m, heads)
                fp8_kernel[grid](*inputs, out, n, D**-0.5 * 1.442695, D, block_m, block_n, p_scale, num_warps=warps, num_stages=stages)

            reached = rate(call, n * n, heads)
            if reached > best.get("TFLOP/s", 0):
                best = {"tile": f"{block_m} x {block_n}", "warps": warps, "stages": stages, "TFLOP/s": reached}
        error = ((out[:1, :64].double() - exact).norm() / exact.norm()).item()
        found.append({"dtype": str(dtype).removeprefix("torch."), **best, "error (RMS / RMS)": error})
    return found


PARTS = (waves, flex, padding, occupancy, descriptors, versions, fp8)


def main() -> None:
    began, details, rows = time.monotonic(), [], []
    for part in PARTS:
        name, start = part.__name__, time.monotonic()
        if start - began > LATEST:
            details.append({"part": name, "left out": f"{start - began:.0f} s had gone"})
            continue
        try:
            found = part()
        except Exception as error:
            traceback.print_exc()
            details.append({"part": f"{name}, failed", "error": f"{type(error).__name__}: {str(error)[:200]}"})
            continue
        print(f"{name}, {time.monotonic() - start:.0f} s", *found, sep="\n  ", flush=True)
        details += [{"part": name, **row} for row in found]
        if part is flex:
            rows = found
    if not GPU and len(sys.argv) < 2:
        print("No GPU: nothing is written.")
        return
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else recorded.RESULTS
    title = f"Masks: the course's kernels against FlexAttention (compiled), D = {D}, {str(DTYPE).removeprefix('torch.')}; 4 D operations a pair that counts"
    print(recorded.write("ch07_versions", title, rows or [{"what": "flex failed; see details"}], folder, details=details))


if __name__ == "__main__":
    main()
