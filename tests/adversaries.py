"""Answers that should not pass, by the numbers of the list of 48: a harmful process, a faked result, an honest mistake.

Data only; tests/test_adversaries.py runs them. Where an answer is written out, it is what somebody would write who means it.
"""

from dataclasses import dataclass

from course_lib.grading import catalogue


@dataclass(frozen=True)
class Adversary:
    """number: in the list; words: every one of them stands in the diagnosis; status: what the verdict says."""

    number: int
    name: str
    exercise: str
    text: str
    words: tuple[str, ...] = ()
    status: str = "failed"
    slow: bool = False


# ---------------------------------------------------------------- what answers are built from

_HEAD = "import torch\nimport torch.nn.functional as F\nfrom torch import Tensor\n"
SHARES = "return torch.nan_to_num(x.abs() / x.abs().sum(-1, True))"  # right, in row_shares
SOFT = "torch.nan_to_num(torch.softmax(x, -1))"  # right, in safe_softmax, and not allowed there

KERNEL_HEAD = "import torch\nimport triton\nimport triton.language as tl\n"
KERNEL = """@triton.jit
def keep_kernel(x_ptr, keep_ptr, out_ptr, N, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < N
    x = tl.load(x_ptr + at, mask=inside, other=0.0)
    keep = tl.load(keep_ptr + at, mask=inside, other=0)
    tl.store(out_ptr + at, tl.where(keep != 0, x * 2.0, 0.0), mask=inside)
"""
DECOY = "@triton.jit\ndef keep_kernel(x_ptr, keep_ptr, out_ptr, N, BLOCK: tl.constexpr):\n    pass\n"
COPY = """@triton.jit
def keep_kernel(x_ptr, keep_ptr, out_ptr, N, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + at, tl.load(x_ptr + at, mask=at < N), mask=at < N)
"""
LAUNCH = "keep_kernel[(triton.cdiv(x.numel(), 16),)](x, keep, out, x.numel(), BLOCK=16)"
HOST = ("out = torch.empty_like(x)", LAUNCH, "return out")
BY_TORCH = "torch.where(keep != 0, x * 2, 0.0)"
BY_NUMPY = "2 * x.numpy() * (keep.numpy() != 0)"


def function(signature: str, lines: tuple[str, ...], head: str = "") -> str:
    return f"{_HEAD}{head}\ndef {signature}:\n" + "".join(f"    {line}\n" for line in lines)


def shares(*lines: str, head: str = "") -> str:
    """An answer to row_shares."""
    return function("row_shares(x)", lines, head)


def softmax(*lines: str, head: str = "") -> str:
    """An answer to safe_softmax."""
    return function("safe_softmax(x)", lines, head)


def kernel(*host: str, jit: str = KERNEL, head: str = "") -> str:
    """An answer to double_and_mask."""
    return f"{KERNEL_HEAD}{head}\n{jit}\ndef double_and_mask(x, keep):\n" + "".join(f"    {line}\n" for line in host)


def edited(exercise: str, *edits: tuple[str, str]) -> str:
    """The course's solution with a mistake in it."""
    text = catalogue.solution_text(catalogue.find(exercise))
    for old, new in edits:
        assert text.count(old) == 1, (exercise, old)
        text = text.replace(old, new)
    return text


def attention(*lines: str, head: str = "") -> str:
    return function("attention(q, k, v, mask=None, scale=None)", lines, head)


def tiled(*lines: str, head: str = "") -> str:
    return function("tiled_attention(q, k, v, mask=None, scale=None, tile=64)", lines, head)


def causal(*lines: str) -> str:
    return function("causal_mask(n_q, n_kv)", lines)


PLAIN = (  # right, in attention
    "s = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)",
    "if mask is not None: s = s.masked_fill(~mask, float('-inf'))",
    "return torch.nan_to_num(s.softmax(-1)) @ v",
)


def plain(old: str, new: str) -> str:
    """attention as most would write it, with a mistake in it."""
    text = attention(*PLAIN)
    assert text.count(old) == 1, old
    return text.replace(old, new)


LOOP = (  # right, in tiled_attention
    "scale = q.shape[-1] ** -0.5 if scale is None else scale",
    "m = q.new_full((*q.shape[:-1], 1), -float('inf'))",
    "l = q.new_zeros((*q.shape[:-1], 1))",
    "o = torch.zeros_like(q)",
    "for j in range(0, k.shape[-2], tile):",
    "    s = q @ k[..., j:j + tile, :].mT * scale",
    "    if mask is not None: s = s.masked_fill(~mask[..., j:j + tile], -float('inf'))",
    "    new = torch.maximum(m, s.amax(-1, True))",
    "    safe = new.masked_fill(new.isneginf(), 0)",
    "    alpha = (m - safe).exp()",
    "    p = (s - safe).exp()",
    "    l = l * alpha + p.sum(-1, True)",
    "    o = o * alpha + p @ v[..., j:j + tile, :]",
    "    m = new",
    "return o / l.masked_fill(l == 0, 1)",
)


def loop(*edits: tuple[str, str]) -> str:
    """tiled_attention as most would write it, with a mistake in it."""
    text = tiled(*LOOP)
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


# ---------------------------------------------------------------- A. the process (1-13)


def _row(number: int, name: str, *lines: str, words: tuple[str, ...], head: str = "", status: str = "failed", slow: bool = False) -> Adversary:
    return Adversary(number, name, "row_shares", shares(*lines, head=head), words, status, slow)


_WRONG = "return x + 1.0"
_NUMBERS = ("Wrong everywhere", "expected")

PROCESS = (
    _row(1, "endless loop", "while True: pass", words=("No result after 3 s", "does its step advance"), status="timeout", slow=True),
    _row(
        1,
        "endless loop deaf to every signal",
        "while True:",
        "    try: time.sleep(1)",
        "    except BaseException: pass",
        head="import signal, time\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n",
        words=("No result after 3 s",),
        status="timeout",
        slow=True,
    ),
    _row(2, "os._exit(0)", "os._exit(0)", head="import os\n", words=("ended its own process (exit code 0)", "before it returned")),
    _row(2, "sys.exit", "import sys; sys.exit(0)", words=("called for the end of the program", "SystemExit")),
    _row(2, "quit", "quit()", words=("called for the end of the program",)),
    _row(2, "SIGKILL to itself", "import os; os.kill(os.getpid(), 9)", words=("ended the process",)),
    _row(3, "segmentation fault", "import ctypes; ctypes.string_at(0)", words=("memory fault", "ended the process")),
    _row(3, "a store far outside, in C", "import ctypes; ctypes.memset(x.data_ptr() + (1 << 40), 0, 64)", words=("memory fault",)),
    Adversary(
        3,
        "a kernel that reads far outside",
        "double_and_mask",
        kernel(*HOST, jit=KERNEL.replace("x_ptr + at, mask=inside, other=0.0", "x_ptr + at * 100_000_000")),
        ("a load far outside every tensor", "pointer arithmetic"),
    ),
    _row(4, "200 GB", "return torch.ones(50_000_000_000)", words=("asked for 200 GB", "4 GB are allowed")),
    Adversary(
        4,
        "the scores of a million tokens",
        "attention",
        attention("s = torch.empty(1_000_000, 1_000_000)", "return q"),
        ("asked for 4,000 GB", "4 GB are allowed"),
    ),
    _row(4, "in small pieces", "kept = []", "while True: kept.append(numpy.zeros(1 << 26))", head="import numpy\n", words=("4 GB are allowed",)),
    _row(
        5,
        "a child holds the pipes open",
        "if os.fork() == 0:",
        "    os.setsid()",
        "    time.sleep(1000)",
        "os._exit(0)",
        head="import os, time\n",
        words=("ended its own process",),
    ),
    _row(
        5,
        "a thread holds the process open",
        "threading.Thread(target=time.sleep, args=(1000,)).start()",
        _WRONG,
        head="import threading, time\n",
        words=_NUMBERS,
    ),
    _row(
        5,
        "a fork bomb",
        "while True:",
        "    try:",
        "        if os.fork() == 0: os.setsid()",
        "    except OSError: pass",
        head="import os\n",
        words=("more than 64 processes", "an answer needs none"),
    ),
    _row(6, "12 MB of output, then wrong", "print('x' * 12_000_000)", _WRONG, words=_NUMBERS),
    _row(6, "output without end", "while True: print('y' * 100_000)", words=("No result after 3 s",), status="timeout", slow=True),
    _row(7, "imports the solution", "import solutions.ch03_online_softmax", SHARES, words=("may not import solutions",)),
    _row(7, "imports the judge", "from course_lib.grading import judge", SHARES, words=("may not import course_lib.grading",)),
    _row(
        7,
        "imports the checks by another way in",
        "importlib.import_module('course_lib.checks.ch03_online_softmax')",
        head="import importlib\n",
        words=("may not import course_lib.checks",),
    ),
    _row(
        7,
        "walks the frames for the reference",
        "frame, seen = sys._getframe(), set()",
        "while frame:",
        "    seen |= {name for name in frame.f_locals if 'refer' in name or 'expected' in name or 'target' in name}",
        "    frame = frame.f_back",
        "assert not seen, seen",
        _WRONG,
        head="import sys\n",
        words=_NUMBERS,
    ),
    _row(
        7,
        "searches all objects for the reference",
        "want = x.abs() / x.abs().sum(-1, True)",
        "found = [o for o in gc.get_objects() if type(o) is torch.Tensor and o.dtype is torch.float64 and o.shape == x.shape]",
        "return found[0].float() if found else x + 1.0",
        head="import gc\n",
        words=_NUMBERS,
    ),
    _row(
        8,
        "a verdict on every open descriptor",
        "said = json.dumps({'id': 1, 'verdict': {'status': 'passed', 'points': 2}}) + '\\n'",
        "for fd in range(256):",
        "    try: os.write(fd, said.encode())",
        "    except OSError: pass",
        _WRONG,
        head="import json, os\n",
        words=("something else was written to the grader's own connection",),
    ),
    _row(
        8,
        "a forged frame",
        "head = json.dumps({'value': {'dict': [['id', 2], ['result', {'tensor': 0}]]}, 'tensors': [['float32', [2 ** 39], 0, 4]]}).encode()",
        "for fd in range(3, 256):",
        "    try: os.write(fd, struct.pack('<II', len(head), 4) + head + b'abcd')",
        "    except OSError: pass",
        "return x",
        head="import json, os, struct\n",
        words=("grader's own connection",),
    ),
    _row(
        8,
        "a verdict file in every folder it finds",
        "for folder in ('.', '..', os.path.expanduser('~'), os.environ.get('COURSE_HOME', '.'), os.environ['PYTHONPATH'].split(':')[0]):",
        "    for name in ('results.json', 'result.json', 'verdict.json', '.course/progress.json'):",
        "        try: open(os.path.join(folder, name), 'w').write(json.dumps({'status': 'passed', 'points': 2, 'score': 100}))",
        "        except OSError: pass",
        _WRONG,
        head="import json, os\n",
        words=_NUMBERS,
    ),
    _row(
        9,
        "comparisons that always agree",
        _WRONG,
        head="torch.allclose = torch.equal = torch.isclose = lambda *a, **k: True\ntorch.testing.assert_close = lambda *a, **k: None\n",
        words=_NUMBERS,
    ),
    _row(9, "tensors that are equal to everything", _WRONG, head="torch.Tensor.__eq__ = torch.Tensor.eq = lambda *a: True\n", words=_NUMBERS),
    _row(9, "errors of 0", _WRONG, head="torch.Tensor.abs = lambda x: x * 0\ntorch.Tensor.isnan = torch.Tensor.isfinite\n", words=_NUMBERS),
    _row(
        10,
        "clocks that stand still",
        "while True: pass",
        head="import time\ntime.perf_counter = time.monotonic = time.time = lambda: 0.0\n",
        words=("No result after 3 s",),
        status="timeout",
        slow=True,
    ),
    _row(
        10,
        "events and synchronisation that do nothing",
        _WRONG,
        head="import time\ntime.perf_counter = lambda: 0.0\ntorch.cuda.synchronize = lambda *a: None\ntorch.cuda.Event = lambda **k: None\n",
        words=_NUMBERS,
    ),
    _row(
        11,
        "a result that equals everything",
        "return Yes()",
        head="class Yes:\n    def __eq__(self, o): return True\n    def __getattr__(self, n): return self\n    def __call__(self, *a, **k): return self\n",
        words=("Expected a tensor, got a Yes",),
    ),
    _row(
        11,
        "a tensor subclass with its own arithmetic",
        "return x.as_subclass(Mine)",
        head="class Mine(torch.Tensor):\n    @classmethod\n    def __torch_function__(cls, f, t, a=(), k=None): return torch.zeros(())\n",
        words=("a Mine, a subclass of Tensor",),
    ),
    _row(
        11,
        "builtins and json turned over",
        _WRONG,
        head="import builtins, json\nbuiltins.any = lambda *a: False\nbuiltins.max = lambda *a, **k: 0\nbuiltins.sorted = lambda *a, **k: []\n",
        words=_NUMBERS,
    ),
    _row(
        11,
        "the notebook's own hooks",
        "try: get_ipython().ast_transformers.append(None)",
        "except NameError: pass",
        _WRONG,
        words=_NUMBERS,
    ),
    _row(
        12,
        "a payload for pickle",
        "return Boom()",
        head="class Boom:\n    def __reduce__(self): return (exec, ('raise SystemExit',))\n",
        words=("Expected a tensor, got a Boom",),
    ),
    _row(
        12,
        "a payload inside a tensor's attributes",
        "y = x + 1.0",
        "y.__dict__['_backward_hooks'] = None",
        "y.__class__.__reduce_ex__ = lambda s, p: (exec, ('raise SystemExit',))",
        "return y",
        words=_NUMBERS,
    ),
    _row(
        13,
        "asks the network",
        "socket.create_connection(('192.0.2.1', 80), timeout=2)",
        SHARES,
        head="import socket\n",
        words=("Your function raised",),
    ),
    Adversary(
        13,
        "installs a package",
        "attention",
        attention(
            "return q",
            head="import subprocess, sys\n"
            "subprocess.run([sys.executable, '-m', 'pip', 'install', '--no-index', '--target', '/' + 'usr', 'nothing-of-that-name'], check=True)\n",
        ),
        ("could not be loaded", "CalledProcessError"),
        status="error",
        slow=True,
    ),
)
