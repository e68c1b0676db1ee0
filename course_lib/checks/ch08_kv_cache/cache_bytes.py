"""Grading material: kv_cache_bytes."""

import torch

from course_lib.checks.ch08_kv_cache.inputs import whole
from course_lib.grading.spec import Check, Mutant, Probe

_HEAD = "def kv_cache_bytes(tokens, layers, kv_heads, head_dim, batch=1, bytes_each=2):\n    return "


def at_once(tokens, layers, kv_heads, head_dim, batch=1, bytes_each=2):
    return 2 * layers * kv_heads * head_dim * tokens * batch * bytes_each


def layer_by_layer(tokens, layers, kv_heads, head_dim, batch=1, bytes_each=2):
    return sum(batch * tokens * kv_heads * head_dim * bytes_each * len(("k", "v")) for _ in range(layers))


def by_tensor(tokens, layers, kv_heads, head_dim, batch=1, bytes_each=2):
    return 2 * layers * torch.empty(batch, kv_heads, tokens, head_dim, device="meta").numel() * bytes_each


def _probes(g: torch.Generator) -> list[Probe]:
    return [
        Probe("one token of a tiny model", (1, 2, 3, 5)),
        Probe("Llama-2-7B, 4,096 tokens", (4096, 32, 32, 128)),
        Probe("Llama-3-8B, one token", (1, 32, 8, 128)),
        Probe("fp32 elements", (whole(g, 50, 90), 7, 4, 64), {"bytes_each": 4}),
        Probe("a batch of several", (whole(g, 100, 200), 12, 2, 80, whole(g, 3, 9))),
        Probe("one K/V head, fp8, a batch", (whole(g, 1000, 2000), 24, 1, 256, 5, 1)),
        Probe("no token yet", (0, 32, 8, 128), diagnose=False),
        Probe("128K tokens of Llama-3-70B", (131072, 80, 8, 128), diagnose=False),
    ]


def _mutant(id: str, message: str, line: str) -> Mutant:
    return Mutant(id, message, body=f"{_HEAD}{line}\n")


KV_CACHE_BYTES = Check(
    exercise="kv_cache_bytes",
    probes=_probes,
    reference=at_once,
    baselines=(at_once, layer_by_layer, by_tensor),
    returns="a number of bytes",
    mutants=(
        _mutant("one-of-two", "Half of it: a token leaves a key and a value behind.", "layers * kv_heads * head_dim * tokens * batch * bytes_each"),
        _mutant("elements", "That is a number of elements. Each takes `bytes_each` bytes.", "2 * layers * kv_heads * head_dim * tokens * batch"),
        _mutant(
            "one-layer", "That is one layer. Every layer has keys and values of its own.", "2 * kv_heads * head_dim * tokens * batch * bytes_each"
        ),
        _mutant(
            "one-head", "That is one head. Every K/V head keeps a key and a value a token.", "2 * layers * head_dim * tokens * batch * bytes_each"
        ),
        _mutant("one-token", "That is one token. The cache holds all of them.", "2 * layers * kv_heads * head_dim * batch * bytes_each"),
        _mutant(
            "one-sequence",
            "Right for one sequence; nothing is shared between the sequences of a batch.",
            "2 * layers * kv_heads * head_dim * tokens * bytes_each",
        ),
        _mutant(
            "always-fp16", "Right for 2 bytes an element and for nothing else: use `bytes_each`.", "4 * layers * kv_heads * head_dim * tokens * batch"
        ),
        _mutant(
            "query-too",
            "Three vectors a head were counted. Queries are not kept: no later token asks for them.",
            "3 * layers * kv_heads * head_dim * tokens * batch * bytes_each",
        ),
        _mutant(
            "scores",
            "That grows with the square of the tokens: scores were counted. They are not kept; what is kept is one key and one value a token.",
            "2 * layers * kv_heads * head_dim * tokens * tokens * batch * bytes_each",
        ),
        _mutant(
            "kv-heads-squared",
            "The K/V heads were counted twice. kv_heads * head_dim is the width of one key for all heads together.",
            "2 * layers * kv_heads * kv_heads * head_dim * tokens * batch * bytes_each",
        ),
        _mutant(
            "bits",
            "That is eight times too much: bits, where `bytes_each` is bytes already.",
            "16 * layers * kv_heads * head_dim * tokens * batch * bytes_each",
        ),
        _mutant(
            "mebibytes",
            "That is a number of MiB (or a rounded one). Return bytes.",
            "2 * layers * kv_heads * head_dim * tokens * batch * bytes_each / 2**20",
        ),
        _mutant(
            "gibibytes",
            "That is a number of GiB (or a rounded one). Return bytes.",
            "2 * layers * kv_heads * head_dim * tokens * batch * bytes_each / 2**30",
        ),
    ),
    right=(
        f"{_HEAD}batch * tokens * layers * (kv_heads * head_dim + kv_heads * head_dim) * bytes_each\n",
        "def kv_cache_bytes(tokens, layers, kv_heads, head_dim, batch=1, bytes_each=2):\n    per_token = 0\n    for _ in range(layers):\n"
        "        per_token += 2 * kv_heads * head_dim * bytes_each\n    return per_token * tokens * batch\n",
        "import math\n\ndef kv_cache_bytes(tokens, layers, kv_heads, head_dim, batch=1, bytes_each=2):\n"
        "    shape = (2, layers, batch, kv_heads, tokens, head_dim)\n    return math.prod(shape) * bytes_each\n",
        "def kv_cache_bytes(tokens, layers, kv_heads, head_dim, batch=1, bytes_each=2):\n    key = value = torch.Size((batch, kv_heads, tokens, head_dim)).numel()\n"
        "    return layers * (key + value) * bytes_each\n",
    ),
)
