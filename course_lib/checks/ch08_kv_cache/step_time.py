"""Grading material: decode_step_time."""

import torch

from course_lib.checks.ch08_kv_cache.inputs import whole
from course_lib.grading.spec import Check, Mutant, Probe

_ARGS = "batch, tokens, params, layers, heads, kv_heads, head_dim, bandwidth, rate, bytes_each=2"
_HEAD = f"def decode_step_time({_ARGS}):\n    cache = 2 * layers * kv_heads * head_dim * tokens * batch * bytes_each\n    flops = 4 * layers * heads * head_dim * tokens * batch\n"
LLAMA_8B = (8_030_261_248, 32, 32, 8, 128)
H200 = (4.8e12, 989.4e12)


def by_parts(batch, tokens, params, layers, heads, kv_heads, head_dim, bandwidth, rate, bytes_each=2):
    matrices = max(params * bytes_each / bandwidth, 2 * params * batch / rate)
    cache = 2 * layers * kv_heads * head_dim * tokens * batch * bytes_each
    return matrices + max(cache / bandwidth, 4 * layers * heads * head_dim * tokens * batch / rate)


def by_comparing(batch, tokens, params, layers, heads, kv_heads, head_dim, bandwidth, rate, bytes_each=2):
    total = 0.0
    for flops, moved in (
        (2 * params * batch, params * bytes_each),
        (4 * heads * head_dim * layers * batch * tokens, 2 * kv_heads * head_dim * layers * batch * tokens * bytes_each),
    ):
        total += flops / rate if flops * bandwidth > moved * rate else moved / bandwidth
    return total


def layer_by_layer(batch, tokens, params, layers, heads, kv_heads, head_dim, bandwidth, rate, bytes_each=2):
    total = 0.0
    for _ in range(layers):
        total += max(params / layers * bytes_each / bandwidth, 2 * params / layers * batch / rate)
        total += batch * tokens * head_dim * max(2 * kv_heads * bytes_each / bandwidth, 4 * heads / rate)
    return total


def _probes(g: torch.Generator) -> list[Probe]:
    few, many = whole(g, 40, 60), whole(g, 600, 900)
    return [
        Probe("the statement's example", (1, 0, 1000, 2, 4, 2, 8, 100.0, 1e12)),
        Probe("Llama-3-8B on an H200, one request, 2,048 tokens", (1, 2048, *LLAMA_8B, *H200)),
        Probe(f"a batch of {few}, 8,192 tokens", (few, 8192, *LLAMA_8B, *H200)),
        Probe(f"a batch of {many}, 512 tokens: the matrices wait for arithmetic", (many, 512, *LLAMA_8B, *H200)),
        Probe("MHA, 4 bytes each", (3, whole(g, 300, 900), 1_100_000_000, 22, 32, 32, 64, 2.0e12, 150e12, 4)),
        Probe("a slow chip: everything waits for arithmetic", (4, 1000, 8_000_000, 5, 6, 2, 64, 20e9, 1e9)),
        Probe("MQA with many query heads on a slow chip", (2, 3000, 1_000_000, 4, 64, 1, 128, 100e9, 4e11), diagnose=False),
        Probe("fp8, by name", (whole(g, 20, 60), 4096, *LLAMA_8B, *H200), {"bytes_each": 1}, diagnose=False),
    ]


def _mutant(id: str, message: str, line: str) -> Mutant:
    return Mutant(id, message, body=f"{_HEAD}    return {line}\n")


_MATRICES = "max(params * bytes_each / bandwidth, 2 * params * batch / rate)"
_ATTENTION = "max(cache / bandwidth, flops / rate)"

DECODE_STEP_TIME = Check(
    exercise="decode_step_time",
    probes=_probes,
    reference=by_parts,
    baselines=(by_parts, by_comparing, layer_by_layer),
    returns="seconds, a number",
    mutants=(
        _mutant(
            "weights-each",
            "The weights were read once for each sequence. One read serves the whole batch: that is why batching helps.",
            f"max(params * batch * bytes_each / bandwidth, 2 * params * batch / rate) + {_ATTENTION}",
        ),
        _mutant(
            "cache-shared",
            "The cache was read once for the whole batch. Every sequence has its own, and all of it is read.",
            f"{_MATRICES} + max(cache / batch / bandwidth, flops / rate)",
        ),
        _mutant("no-cache", "Only the weights are in it. Attention reads every sequence's cache as well.", _MATRICES),
        _mutant("no-weights", "Only attention is in it. The matrix products read every weight once a step.", _ATTENTION),
        _mutant(
            "bytes-only",
            "Right while memory is the limit. With a large batch, or on a slow chip, the FLOPs take longer: each part takes the larger of its two times.",
            "(params * bytes_each + cache) / bandwidth",
        ),
        _mutant(
            "one-roofline",
            "Bytes and FLOPs of the two parts were added before they were compared, as if attention's reading could hide behind the matrices' arithmetic. "
            "They run one after the other: a maximum for each, then the sum.",
            "max((params * bytes_each + cache) / bandwidth, (2 * params * batch + flops) / rate)",
        ),
        _mutant(
            "everything-added",
            "The two times of a part were added. Reading and computing overlap: a part takes the larger of the two.",
            "(params * bytes_each + cache) / bandwidth + (2 * params * batch + flops) / rate",
        ),
        _mutant(
            "parts-overlap",
            "The larger of the two parts came back. They run one after the other: add them.",
            f"max({_MATRICES}, {_ATTENTION})",
        ),
        _mutant(
            "smaller-of-two",
            "The smaller of two times was taken. Both have to happen: the slower one says how long it takes.",
            "min(params * bytes_each / bandwidth, 2 * params * batch / rate) + min(cache / bandwidth, flops / rate)",
        ),
        _mutant(
            "one-flop-a-weight",
            "One FLOP a weight was counted: a weight is multiplied and the product added, 2 FLOPs for each sequence.",
            f"max(params * bytes_each / bandwidth, params * batch / rate) + {_ATTENTION}",
        ),
        _mutant(
            "flops-of-one",
            "The matrix FLOPs of one sequence were counted. The weights are read once, and used once for each sequence.",
            f"max(params * bytes_each / bandwidth, 2 * params / rate) + {_ATTENTION}",
        ),
        _mutant(
            "flops-by-kv-heads",
            "Attention's FLOPs were counted for the K/V heads. Grouping saves bytes, not arithmetic: every query head computes its scores.",
            f"{_MATRICES} + max(cache / bandwidth, 4 * layers * kv_heads * head_dim * tokens * batch / rate)",
        ),
        _mutant(
            "cache-by-query-heads",
            "The cache was counted with the query heads. It holds kv_heads heads a layer.",
            f"{_MATRICES} + max(2 * layers * heads * head_dim * tokens * batch * bytes_each / bandwidth, flops / rate)",
        ),
        _mutant(
            "two-flops-in-attention",
            "Half of attention's FLOPs are missing: the scores take 2 a feature, the weighted values another 2.",
            f"{_MATRICES} + max(cache / bandwidth, flops / 2 / rate)",
        ),
        _mutant("k-only", "Half of the cache was read: a token has a key and a value.", f"{_MATRICES} + max(cache / 2 / bandwidth, flops / rate)"),
        _mutant(
            "always-fp16",
            "Right for 2 bytes each: use `bytes_each`, for the weights and for the cache.",
            "max(params * 2 / bandwidth, 2 * params * batch / rate) + max(cache / bytes_each * 2 / bandwidth, flops / rate)",
        ),
        _mutant(
            "weights-always-fp16",
            "The weights were taken for 2 bytes each: use `bytes_each` for them as for the cache.",
            f"max(params * 2 / bandwidth, 2 * params * batch / rate) + {_ATTENTION}",
        ),
        _mutant(
            "cache-always-fp16",
            "The cache was taken for 2 bytes an element: use `bytes_each` for it as for the weights.",
            f"{_MATRICES} + max(cache / bytes_each * 2 / bandwidth, flops / rate)",
        ),
        _mutant("tokens-a-second", "That is a rate: tokens a second. Asked is the time of one step.", f"batch / ({_MATRICES} + {_ATTENTION})"),
        _mutant("milliseconds", "That is a number of milliseconds. Return seconds.", f"1e3 * ({_MATRICES} + {_ATTENTION})"),
        _mutant(
            "a-token",
            "The time was divided by the batch: that is the time a token costs. Asked is the step.",
            f"({_MATRICES} + {_ATTENTION}) / batch",
        ),
    ),
    right=(
        f"from course_lib.earlier import kv_cache_bytes\n\ndef decode_step_time({_ARGS}):\n"
        "    cache = kv_cache_bytes(tokens, layers, kv_heads, head_dim, batch, bytes_each)\n    parts = [(2 * params * batch, params * bytes_each),\n"
        "             (4 * layers * heads * head_dim * tokens * batch, cache)]\n    return sum(max(b / bandwidth, f / rate) for f, b in parts)\n",
        f"from course_lib import roofline\n\ndef decode_step_time({_ARGS}):\n    chip = roofline.Machine('a chip', bandwidth, {{'any': rate}})\n"
        "    linear = roofline.Work(2 * params * batch, params * bytes_each)\n"
        "    attention = roofline.Work(4 * layers * heads * head_dim * tokens * batch, 2 * layers * kv_heads * head_dim * tokens * batch * bytes_each)\n"
        "    return roofline.seconds(linear, chip, 'any') + roofline.seconds(attention, chip, 'any')\n",
        f"def decode_step_time({_ARGS}):\n    t = 0.0\n    t += max(params * bytes_each / bandwidth, 2.0 * params * batch / rate)\n"
        "    per_layer = max(2 * kv_heads * head_dim * tokens * bytes_each / bandwidth, 4.0 * heads * head_dim * tokens / rate)\n    return t + layers * batch * per_layer\n",
    ),
)
