"""Grading material: max_batch_size."""

import torch

from course_lib.checks.ch08_kv_cache.inputs import whole
from course_lib.grading.spec import Check, Mutant, Probe

_ARGS = "memory_bytes, weight_bytes, tokens, layers, kv_heads, head_dim, bytes_each=2, reserve=0"
_HEAD = f"def max_batch_size({_ARGS}):\n    one = 2 * layers * kv_heads * head_dim * tokens * bytes_each\n"
GB = 10**9


def by_division(memory_bytes, weight_bytes, tokens, layers, kv_heads, head_dim, bytes_each=2, reserve=0):
    return max(0, (memory_bytes - weight_bytes - reserve) // (2 * layers * kv_heads * head_dim * tokens * bytes_each))


def one_by_one(memory_bytes, weight_bytes, tokens, layers, kv_heads, head_dim, bytes_each=2, reserve=0):
    free, batch = memory_bytes - weight_bytes - reserve, 0
    while free >= (one := 2 * layers * kv_heads * head_dim * tokens * bytes_each):
        free, batch = free - one, batch + 1
    return batch


def by_bisection(memory_bytes, weight_bytes, tokens, layers, kv_heads, head_dim, bytes_each=2, reserve=0):
    low, high = 0, 10**6
    while low < high:
        middle = (low + high + 1) // 2
        fits = weight_bytes + reserve + middle * 2 * layers * kv_heads * head_dim * tokens * bytes_each <= memory_bytes
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _probes(g: torch.Generator) -> list[Probe]:
    one = 2 * 32 * 8 * 128 * 2048 * 2
    return [
        Probe("the statement's example", (1000, 400, 100, 1, 1, 1, 1)),
        Probe("Llama-2-7B on 80 GB, 4,096 tokens", (80 * GB, 13_476_831_232, 4096, 32, 32, 128)),
        Probe("Llama-3-8B on 24 GB, 2 GB kept free", (24 * GB, 16_060_522_496, 2048, 32, 8, 128), {"reserve": 2 * GB}),
        Probe("exactly full", (16 * GB + 7 * one, 16 * GB, 2048, 32, 8, 128)),
        Probe("an fp8 cache, a reserve that matters", (40 * GB, whole(g, 14, 17) * GB, 8192, 40, 8, 128, 1, whole(g, 3, 6) * GB)),
        Probe("the weights do not fit", (40 * GB, 137_953_312_768, 4096, 80, 8, 128)),
        Probe("the weights fit and one sequence does not", (16 * GB, 15 * GB, 32768, 32, 8, 128), diagnose=False),
        Probe("short answers", (80 * GB, whole(g, 3, 6) * GB, whole(g, 100, 300), 28, 4, 128), diagnose=False),
    ]


def _mutant(id: str, message: str, line: str) -> Mutant:
    return Mutant(id, message, body=f"{_HEAD}    return {line}\n")


MAX_BATCH_SIZE = Check(
    exercise="max_batch_size",
    probes=_probes,
    reference=by_division,
    baselines=(by_division, one_by_one, by_bisection),
    returns="a whole number",
    mutants=(
        _mutant("no-weights", "The weights are missing: they lie in the same memory.", "max(0, (memory_bytes - reserve) // one)"),
        _mutant(
            "weights-each",
            "The weights were counted for every sequence. They are there once, and all sequences use them: that is what makes batches worth while.",
            "max(0, (memory_bytes - reserve) // (one + weight_bytes))",
        ),
        _mutant("reserve-ignored", "Right without a reserve: `reserve` bytes must stay free.", "max(0, (memory_bytes - weight_bytes) // one)"),
        _mutant(
            "reserve-added", "The reserve was added to the memory where it is taken away.", "max(0, (memory_bytes - weight_bytes + reserve) // one)"
        ),
        _mutant(
            "reserve-each",
            "The reserve was taken for every sequence. It is kept free once.",
            "max(0, (memory_bytes - weight_bytes) // (one + reserve))",
        ),
        _mutant(
            "negative",
            "A batch below 0 came back where the weights do not fit. Then no sequence fits: 0.",
            "(memory_bytes - weight_bytes - reserve) // one",
        ),
        _mutant(
            "negative-towards-0",
            "Where the weights do not fit, the number came out below 0. Then no sequence fits: 0.",
            "int((memory_bytes - weight_bytes - reserve) / one)",
        ),
        _mutant(
            "a-fraction-below-0",
            "A fraction of a sequence came back, and a negative one where the weights do not fit. Round down to a whole number, and never below 0.",
            "(memory_bytes - weight_bytes - reserve) / one",
        ),
        _mutant(
            "weights-in-elements",
            "`weight_bytes` was multiplied by `bytes_each`. It is a number of bytes already.",
            "max(0, (memory_bytes - weight_bytes * bytes_each - reserve) // one)",
        ),
        _mutant(
            "at-least-one",
            "1 came back where not even one sequence fits: the answer is 0 there.",
            "max(1, (memory_bytes - weight_bytes - reserve) // one)",
        ),
        _mutant(
            "exactly-full-is-too-much",
            "Wrong only where the last sequence fits exactly: memory that is full to the last byte is a fit.",
            "max(0, (memory_bytes - weight_bytes - reserve - 1) // one)",
        ),
        _mutant(
            "rounded-up",
            "Rounded up: the last sequence fits only in part. Round down.",
            "max(0, -(-(memory_bytes - weight_bytes - reserve) // one))",
        ),
        _mutant(
            "rounded-to-nearest",
            "Rounded to the nearest whole number: where the fraction is above one half, the last sequence does not fit. Round down.",
            "max(0, (2 * (memory_bytes - weight_bytes - reserve) + one) // (2 * one))",
        ),
        _mutant(
            "rounded-to-nearest-below-0",
            "Rounded to the nearest whole number, and below 0 where the weights do not fit. Round down, and never below 0.",
            "round((memory_bytes - weight_bytes - reserve) / one)",
        ),
        _mutant(
            "a-fraction",
            "A fraction of a sequence does not run: round down to a whole number.",
            "max(0.0, (memory_bytes - weight_bytes - reserve) / one)",
        ),
        _mutant("k-only", "Twice too many: a token leaves a key and a value.", "max(0, (memory_bytes - weight_bytes - reserve) // (one // 2))"),
        _mutant(
            "always-fp16",
            "Right for a cache of 2 bytes an element: use `bytes_each`.",
            "max(0, (memory_bytes - weight_bytes - reserve) // (4 * layers * kv_heads * head_dim * tokens))",
        ),
        _mutant(
            "elements",
            "The cache was counted in elements. Memory is bytes: each element takes `bytes_each`.",
            "max(0, (memory_bytes - weight_bytes - reserve) // (2 * layers * kv_heads * head_dim * tokens))",
        ),
        _mutant(
            "one-layer",
            "The cache of one layer was counted. Every layer has keys and values of its own.",
            "max(0, (memory_bytes - weight_bytes - reserve) // (one // layers))",
        ),
        _mutant(
            "tokens",
            "That is how many tokens fit, not how many sequences of `tokens` tokens.",
            "max(0, (memory_bytes - weight_bytes - reserve) // (one // tokens))",
        ),
    ),
    right=(
        f"{_HEAD}    batch = 0\n    while weight_bytes + reserve + (batch + 1) * one <= memory_bytes:\n        batch += 1\n    return batch\n",
        f"from course_lib.earlier import kv_cache_bytes\n\ndef max_batch_size({_ARGS}):\n    free = memory_bytes - weight_bytes - reserve\n    if free <= 0:\n"
        "        return 0\n    return int(free // kv_cache_bytes(tokens, layers, kv_heads, head_dim, bytes_each=bytes_each))\n",
        f"import math\n\ndef max_batch_size({_ARGS}):\n    left = memory_bytes - (weight_bytes + reserve)\n"
        "    return max(math.floor(left / (layers * kv_heads * head_dim * tokens * bytes_each * 2)), 0)\n",
    ),
)
