"""Counts every kernel and writes, a JSON line each, what was counted beside the closed form and whether the values are right.

Run in a process where kernels are interpreted: TRITON_INTERPRET=1 python tests/kernels_for_counting/cases.py
"""

import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

import counted_kernels as k  # noqa: E402
import torch  # noqa: E402
import triton  # noqa: E402

from course_lib import traffic  # noqa: E402


def up(a: int, b: int) -> int:
    return -(-a // b)


def _launch(call):
    with traffic.counted() as launches:
        result = call()
    (launch,) = launches
    return launch, result


def line(name: str, call, expected, **closed) -> dict:
    """closed: the Launch's attributes in closed form; `ARG` as {loaded, stored, loaded_once, stored_once} where a dict is given."""
    launch, result = _launch(call)
    counted = {}
    for key, form in closed.items():
        counted[key] = {part: getattr(launch.tensors[key], part) for part in form} if isinstance(form, dict) else getattr(launch, key)
    right = bool(torch.allclose(result.double(), expected.double(), atol=1e-4))
    return {"case": name, "counted": counted, "closed": closed, "right": right, "triton": triton.__version__}


def cases():
    g = torch.Generator().manual_seed(0)

    def rand(*shape):
        return torch.randn(*shape, generator=g)

    for n, block, dtype in (
        (70, 16, torch.float32),
        (64, 64, torch.float32),
        (1, 16, torch.float32),
        (999, 128, torch.float16),
        (130, 32, torch.int8),
    ):
        x = (rand(n) * 9).to(dtype)
        e, programs = x.element_size(), up(n, block)
        once = {"loaded": n * e, "loaded_once": n * e, "stored": 0}
        amounts = {"bytes_loaded": n * e, "bytes_stored": n * e, "loads": programs, "stores": programs, "programs": programs, "x_ptr": once}
        lanes = {"lanes": 2 * programs * block, "lanes_on": 2 * n, "bytes_once": 2 * n * e}
        yield line(f"copy of {n} {dtype}, tiles of {block}", lambda x=x, block=block: k.copy(x, block), x, **amounts, **lanes, flops=0)

    for rows, n, block in ((5, 70, 16), (3, 64, 64), (7, 17, 32)):
        x = rand(rows, n)
        for passes, kernel in ((1, k.softmax_one_pass_kernel), (2, k.softmax_online_kernel), (3, k.softmax_three_passes_kernel)):
            tile = block if passes > 1 else 128
            amounts = {"bytes_loaded": passes * rows * n * 4, "bytes_stored": rows * n * 4, "bytes_once": 2 * rows * n * 4}
            amounts |= {"loads": rows * passes * up(n, tile), "stores": rows * up(n, tile)}
            amounts["x_ptr"] = {"loaded": passes * rows * n * 4, "loaded_once": rows * n * 4}
            call = lambda x=x, kernel=kernel, tile=tile: k.softmax(x, kernel, tile)  # noqa: E731
            yield line(f"softmax of [{rows}, {n}], {passes} passes, tiles of {tile}", call, x.softmax(-1), **amounts)
    wide = rand(5, 128)[:, :70]
    call = lambda: k.softmax(wide, k.softmax_online_kernel, 32)  # noqa: E731
    yield line("softmax of a slice [5, 70] of [5, 128]", call, wide.softmax(-1), bytes_loaded=2 * 5 * 70 * 4, x_ptr={"loaded_once": 5 * 70 * 4})

    for m, n, kk, bm, bn, bk in ((33, 17, 50, 16, 16, 16), (64, 32, 48, 32, 16, 16), (5, 70, 3, 16, 32, 16), (40, 40, 100, 32, 64, 32)):
        a, b = rand(m, kk), rand(kk, n)
        loaded_a, loaded_b = 4 * m * kk * up(n, bn), 4 * kk * n * up(m, bm)
        dots = up(m, bm) * up(n, bn) * up(kk, bk)
        amounts = {"bytes_loaded": loaded_a + loaded_b, "bytes_stored": 4 * m * n, "dots": dots, "flops": dots * 2 * bm * bn * bk}
        amounts |= {"a_ptr": {"loaded": loaded_a, "loaded_once": 4 * m * kk}, "b_ptr": {"loaded": loaded_b, "loaded_once": 4 * kk * n}}
        amounts |= {
            "c_ptr": {"loaded": 0, "stored": 4 * m * n, "stored_once": 4 * m * n},
            "lanes": dots * bk * (bm + bn) + up(m, bm) * up(n, bn) * bm * bn,
        }
        call = lambda a=a, b=b, t=(bm, bn, bk): k.matmul(a, b, *t)  # noqa: E731
        yield line(f"matmul {m} x {n} x {kk}, tiles {bm} x {bn} x {bk}", call, a @ b, **amounts)

    for heads, n, d, bm, bn in ((1, 70, 16, 16, 16), (3, 64, 32, 32, 16), (2, 50, 16, 64, 32)):
        q, key, v = rand(heads, n, d), rand(heads, n, d), rand(heads, n, d)
        tiles = up(n, bm)
        dots = heads * tiles * up(n, bn)
        amounts = {"bytes_loaded": heads * n * d * 4 * (1 + 2 * tiles), "bytes_stored": heads * (n * d * 4 + 4 * n)}
        amounts |= {"flops": dots * 4 * bm * bn * d, "dots": 2 * dots, "bytes_once": heads * (4 * n * d * 4 + 4 * n)}
        amounts |= {"k_ptr": {"loaded": tiles * heads * n * d * 4, "loaded_once": heads * n * d * 4}, "programs": tiles * heads}
        call = lambda q=q, key=key, v=v, t=(bm, bn): k.flash(q, key, v, *t)  # noqa: E731
        yield line(f"flash forward, {heads} heads of {n} x {d}, tiles {bm} x {bn}", call, torch.softmax(q @ key.mT * d**-0.5, -1) @ v, **amounts)

    for m, n, bm, bn in ((50, 64, 16, 32), (33, 20, 16, 16)):
        x = rand(m, n)
        amounts = {"bytes_loaded": m * n * 4, "bytes_stored": m * n * 4, "lanes_on": 2 * m * n, "lanes": 2 * bm * bn * up(m, bm) * up(n, bn)}
        yield line(
            f"descriptors from the host, {m} x {n}", lambda x=x, t=(bm, bn): k.described_copy(x, *t), x, x_desc={"loaded_once": m * n * 4}, **amounts
        )
        yield line(f"descriptors made in the kernel, {m} x {n}", lambda x=x, t=(bm, bn): k.described_inside(x, *t), x, **amounts)

    table, ids = rand(11, 20), torch.tensor([3, 0, 3, 10, 3])
    amounts = {"bytes_loaded": 5 * 8 + 5 * 20 * 4, "bytes_stored": 5 * 20 * 4, "table_ptr": {"loaded": 5 * 80, "loaded_once": 3 * 80}}
    yield line("gather of 5 rows, 3 of them different", lambda: k.gather_rows(table, ids, 32), table[ids], **amounts)
    x, ids = rand(16, 32), torch.tensor([1, 3, 5, 15, 0, 2, 8, 9], dtype=torch.int32)
    expected = torch.zeros_like(x).index_copy(0, ids.long(), x[ids.long()])
    amounts = {
        "bytes_loaded": 8 * 4 + 8 * 32 * 4,
        "bytes_stored": 8 * 32 * 4,
        "x_desc": {"loaded": 8 * 32 * 4},
        "out_desc": {"stored_once": 8 * 32 * 4},
    }
    yield line("gather and scatter by descriptor", lambda: k.gather_scatter(x, ids, 16), expected, **amounts)
    row, order = rand(32), torch.randperm(32, generator=g)
    yield line("tl.gather moves nothing in memory", lambda: k.shuffled(row, order.int()), row[order], bytes_loaded=32 * 8, bytes_stored=32 * 4)

    x = torch.randint(0, 7, (100,), generator=g, dtype=torch.int32)
    amounts = {
        "bytes_loaded": 100 * 4 * 2,
        "bytes_stored": 100 * 4,
        "atomics": up(100, 32),
        "bins_ptr": {"loaded": 400, "stored": 400, "stored_once": 7 * 4},
    }
    yield line("atomic additions", lambda: k.histogram(x, 7, 32), torch.bincount(x, minlength=7), **amounts)
    yield line("compare and swap", lambda: k.first(5), torch.tensor([1]), bytes_loaded=20, bytes_stored=20, atomics=5, flag_ptr={"loaded_once": 4})


if __name__ == "__main__":
    for found in cases():
        print(json.dumps(found))
