"""Grading material: score_matrix_bytes and naive_attention_bytes."""

import torch

from course_lib.grading.spec import Check, Mutant, Probe


def scores_by_product(n_q, n_kv, heads=1, batch=1, bytes_each=2):
    return n_q * n_kv * heads * batch * bytes_each


def scores_by_meta(n_q, n_kv, heads=1, batch=1, bytes_each=2):
    """The size that torch gives a tensor of that shape, without its memory."""
    return torch.empty(batch, heads, n_q, n_kv, dtype=torch.uint8, device="meta").nbytes * bytes_each


def scores_row_by_row(n_q, n_kv, heads=1, batch=1, bytes_each=2):
    return sum(n_kv * bytes_each for _ in range(batch * heads * n_q))


def steps_by_hand(n_q, n_kv, d, heads=1, bytes_each=2):
    outer, inner = n_q * n_kv, (n_q + n_kv) * d
    return tuple(count * heads * bytes_each for count in (inner + outer, 2 * outer, outer + inner))


def steps_by_shapes(n_q, n_kv, d, heads=1, bytes_each=2):
    q, kv, s = (heads, n_q, d), (heads, n_kv, d), (heads, n_q, n_kv)
    steps = ((q, kv, s), (s, s), (s, kv, q))
    return tuple(sum(torch.Size(shape).numel() for shape in step) * bytes_each for step in steps)


def steps_head_by_head(n_q, n_kv, d, heads=1, bytes_each=2):
    one = steps_by_hand(n_q, n_kv, d, 1, bytes_each)
    return tuple(sum(part for _ in range(heads)) for part in one)


def _draw(g: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high, (1,), generator=g))


def _score_probes(g: torch.Generator) -> list[Probe]:
    return [
        Probe("2 queries, 3 keys", (2, 3)),
        Probe("one head", (_draw(g, 100, 400), _draw(g, 500, 900))),
        Probe("several heads", (_draw(g, 20, 60), _draw(g, 70, 90), _draw(g, 5, 9))),
        Probe("a batch, several heads", (_draw(g, 20, 60), _draw(g, 70, 90), _draw(g, 5, 9), _draw(g, 10, 14))),
        Probe("a batch, several heads, 4 bytes each", (33, 47, _draw(g, 2, 9), _draw(g, 10, 14), 4)),
        Probe("keywords", (19, 7), {"batch": _draw(g, 3, 6), "bytes_each": 1}),
    ]


def _score_mutant(id: str, message: str, line: str) -> Mutant:
    return Mutant(id, message, body=f"def score_matrix_bytes(n_q, n_kv, heads=1, batch=1, bytes_each=2):\n    return {line}\n")


SCORE_MATRIX_BYTES = Check(
    exercise="score_matrix_bytes",
    probes=_score_probes,
    reference=scores_by_product,
    baselines=(scores_by_product, scores_by_meta, scores_row_by_row),
    returns="a number of bytes",
    mutants=(
        _score_mutant("elements", "That is the number of scores. Each takes `bytes_each` bytes.", "n_q * n_kv * heads * batch"),
        _score_mutant(
            "one-head",
            "Right for one head. Every query head has a score matrix of its own.",
            "n_q * n_kv * batch * bytes_each",
        ),
        _score_mutant("one-sequence", "Right for one sequence. Every sequence of the batch has its own.", "n_q * n_kv * heads * bytes_each"),
        _score_mutant(
            "one-head-of-one-sequence",
            "Right for one head of one sequence. Every head of every sequence has a score matrix of its own.",
            "n_q * n_kv * bytes_each",
        ),
        _score_mutant("square", "The matrix is not square: one row a query, one column a key.", "n_q * n_q * heads * batch * bytes_each"),
        _score_mutant("square-of-keys", "The matrix is not square: one row a query, one column a key.", "n_kv * n_kv * heads * batch * bytes_each"),
        _score_mutant(
            "with-p", "Twice what it should be: that is S and P together. This asks for S alone.", "2 * n_q * n_kv * heads * batch * bytes_each"
        ),
        _score_mutant("always-fp16", "Right for 2 bytes each: `bytes_each` is not used.", "2 * n_q * n_kv * heads * batch"),
        _score_mutant(
            "always-fp32", "Twice what it should be at 2 bytes each: 4 bytes a score is fp32. Use `bytes_each`.", "4 * n_q * n_kv * heads * batch"
        ),
        _score_mutant("bits", "Eight times what it should be: that is in bits.", "8 * n_q * n_kv * heads * batch * bytes_each"),
        _score_mutant("kibibytes", "That is in KiB. The answer is asked for in bytes.", "n_q * n_kv * heads * batch * bytes_each / 1024"),
        _score_mutant("mebibytes", "That is in MiB. The answer is asked for in bytes.", "n_q * n_kv * heads * batch * bytes_each / 2**20"),
        _score_mutant(
            "a-line",
            "The sizes of the queries and the keys were added. Every pair of a query and a key has a score: that is a product.",
            "(n_q + n_kv) * heads * batch * bytes_each",
        ),
    ),
    right=(
        "from math import prod\n\ndef score_matrix_bytes(n_q, n_kv, heads=1, batch=1, bytes_each=2):\n    return prod([batch, heads, n_q, n_kv, bytes_each])\n",
        "def score_matrix_bytes(n_q, n_kv, heads=1, batch=1, bytes_each=2):\n    bits = 8.0 * bytes_each\n    return batch * heads * n_q * n_kv * bits / 8\n",
        "def score_matrix_bytes(n_q, n_kv, heads=1, batch=1, bytes_each=2):\n"
        "    return torch.empty(batch, heads, n_q, n_kv, dtype=torch.int8).nelement() * bytes_each\n",
    ),
)


def _step_probes(g: torch.Generator) -> list[Probe]:
    return [
        Probe("2 queries, 3 keys, width 4", (2, 3, 4)),
        Probe("more queries than keys", (_draw(g, 500, 900), _draw(g, 100, 400), 64)),
        Probe("more keys than queries", (_draw(g, 100, 400), _draw(g, 500, 900), _draw(g, 30, 90))),
        Probe("several heads", (_draw(g, 20, 60), _draw(g, 70, 90), _draw(g, 100, 120), _draw(g, 5, 9))),
        Probe("several heads, 4 bytes each", (_draw(g, 70, 90), _draw(g, 20, 60), 16, _draw(g, 5, 9), 4)),
        Probe("one query, 1 byte each", (1, _draw(g, 1000, 2000), 128), {"bytes_each": 1}),
    ]


_SUM = "tuple(heads * bytes_each * elements for elements in ({}))"


def _steps(scores: str = "q + kv + s", softmax: str = "s + s", output: str = "s + kv + q", result: str = "") -> str:
    return (
        "def naive_attention_bytes(n_q, n_kv, d, heads=1, bytes_each=2):\n    q, kv, s = n_q * d, n_kv * d, n_q * n_kv\n"
        f"    return {result or _SUM.format(f'{scores}, {softmax}, {output}')}\n"
    )


def _step_mutant(id: str, message: str, **parts: str) -> Mutant:
    return Mutant(id, message, body=_steps(**parts))


NAIVE_ATTENTION_BYTES = Check(
    exercise="naive_attention_bytes",
    probes=_step_probes,
    reference=steps_by_hand,
    baselines=(steps_by_hand, steps_by_shapes, steps_head_by_head),
    returns="three numbers of bytes (scores, softmax, output)",
    mutants=(
        _step_mutant(
            "writes-forgotten",
            "Only what each step reads was counted. The result of a step has to be written to memory, or the next one could not read it.",
            scores="q + kv",
            softmax="s",
            output="s + kv",
        ),
        _step_mutant(
            "s-not-written",
            "The first step's result is missing: S goes to memory before the softmax can read it.",
            scores="q + kv",
        ),
        _step_mutant(
            "p-not-read",
            "The last step reads P from memory as well: the softmax left it there.",
            output="kv + q",
        ),
        _step_mutant("softmax-one-way", "The softmax reads S and writes P: two matrices of that size move, not one.", softmax="s"),
        _step_mutant(
            "softmax-in-passes",
            (
                "The softmax was charged for several reads of S. A kernel may need them (chapter 03 counts such passes); here every step reads its "
                "inputs once."
            ),
            softmax="4 * s",
        ),
        _step_mutant(
            "softmax-two-reads",
            (
                "The softmax was charged for more than one read of S. A kernel may need them (chapter 03 counts such passes); here every step reads "
                "its inputs once."
            ),
            softmax="3 * s",
        ),
        _step_mutant(
            "inputs-only",
            "S and P were left out altogether: that is what a single kernel that keeps them on the chip would move.",
            scores="q + kv",
            softmax="0",
            output="kv + q",
        ),
        _step_mutant(
            "v-forgotten",
            "The last step multiplies P by V, and V has to be read too.",
            output="s + q",
        ),
        _step_mutant("output-not-written", "The last step's result is missing: the output is as large as Q, and it is written.", output="s + kv"),
        _step_mutant("k-forgotten", "The first step reads K as well as Q.", scores="q + s"),
        _step_mutant(
            "queries-for-keys",
            "K and V were counted as long as Q. They have n_kv rows.",
            scores="q + q + s",
            output="s + q + q",
        ),
        _step_mutant(
            "square",
            "S and P were counted as square. They have one row a query and one column a key.",
            scores="q + kv + n_q * n_q",
            softmax="2 * n_q * n_q",
            output="n_q * n_q + kv + q",
        ),
        _step_mutant(
            "a-read-for-every-score",
            (
                "Every score was charged for reading its own row of Q and of K. Then each row would be read N times; here a step reads its inputs "
                "once. (Section 7 counts what a kernel without tiles would ask for.)"
            ),
            scores="s * 2 * d + s",
            output="q * (n_kv + n_kv) + q",
        ),
        _step_mutant(
            "a-read-for-every-score-only-first",
            (
                "Every score was charged for reading its own row of Q and of K. Then each row would be read N times; here a step reads its inputs "
                "once. (Section 7 counts what a kernel without tiles would ask for.)"
            ),
            scores="s * 2 * d + s",
        ),
        _step_mutant(
            "multiplications",
            "That counts multiplications. Bytes follow the sizes of the matrices that go in and come out.",
            scores="n_q * n_kv * d",
            softmax="s",
            output="n_q * n_kv * d",
        ),
        _step_mutant(
            "flops",
            "That counts FLOPs. Bytes follow the sizes of the matrices that go in and come out.",
            result="tuple(heads * n for n in (2 * n_q * n_kv * d, 5 * s, 2 * n_q * n_kv * d))",
        ),
        _step_mutant(
            "one-head",
            "Right for one head. Every head has its own Q, K, V, S, P and output.",
            result="tuple(bytes_each * elements for elements in (q + kv + s, s + s, s + kv + q))",
        ),
        _step_mutant(
            "heads-of-s-only",
            "Only S and P were multiplied by the number of heads. Every head has its own Q, K, V and output too: d is the width of one head.",
            result="tuple(bytes_each * elements for elements in (q + kv + heads * s, 2 * heads * s, heads * s + kv + q))",
        ),
        _step_mutant(
            "heads-twice",
            "Right for one head; with more, the number of heads was multiplied in twice.",
            result="tuple(heads * heads * bytes_each * e for e in (q + kv + s, s + s, s + kv + q))",
        ),
        _step_mutant(
            "output-like-keys",
            "The last step's result was counted with n_kv rows. It has a row for each query, as Q does.",
            output="s + kv + kv",
        ),
        _step_mutant(
            "elements", "Those are elements. Each takes `bytes_each` bytes.", result="tuple(heads * e for e in (q + kv + s, s + s, s + kv + q))"
        ),
        _step_mutant(
            "always-fp16",
            "Right for 2 bytes each: `bytes_each` is not used.",
            result="tuple(heads * 2 * e for e in (q + kv + s, s + s, s + kv + q))",
        ),
        Mutant(
            "summed",
            "It asks for the three steps one by one, in their order: (scores, softmax, output).",
            body=_steps(result="heads * bytes_each * (2 * q + 2 * kv + 4 * s)"),
            rule="type",
        ),
    ),
    right=(
        """\
def naive_attention_bytes(n_q, n_kv, d, heads=1, bytes_each=2):
    size = {'q': n_q * d, 'k': n_kv * d, 'v': n_kv * d, 'o': n_q * d, 's': n_q * n_kv, 'p': n_q * n_kv}
    return [sum(size[name] for name in step) * heads * bytes_each for step in ('qks', 'sp', 'pvo')]
""",
        """\
def naive_attention_bytes(n_q, n_kv, d, heads=1, bytes_each=2):
    e = heads * bytes_each
    first = e * (d * (n_q + n_kv) + n_q * n_kv)
    return first, 2 * e * n_q * n_kv, first
""",
        """\
def naive_attention_bytes(n_q, n_kv, d, heads=1, bytes_each=2):
    shape = lambda *s: torch.empty(heads, *s, device='meta', dtype=torch.uint8).numel() * bytes_each
    q, k, v, o = shape(n_q, d), shape(n_kv, d), shape(n_kv, d), shape(n_q, d)
    s = p = shape(n_q, n_kv)
    return (q + k + s, s + p, p + v + o)
""",
    ),
)
