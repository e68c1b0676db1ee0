"""Grading material: generate. A toy model stands in for a real one: its next token depends on everything that its cache holds."""

from pathlib import Path

import torch
from torch import Tensor

from course_lib.checks.ch08_kv_cache import generating_harness as toy
from course_lib.checks.ch08_kv_cache.generating_right import RIGHT
from course_lib.checks.ch08_kv_cache.inputs import normal
from course_lib.grading.spec import Check, Mutant, Probe

HARNESS = Path(__file__).with_name("generating_harness.py").read_text(encoding="utf-8")
ONCE = "each token once"
V = 9


def token_by_token(model: Tensor, tokens: Tensor, cache: int, max_new_tokens: int, eos: int | None = None, choose: int | None = None):
    """The definition, from the whole history at every step."""
    made, choice, text = toy.Model(model), None if choose is None else toy.Choice(choose, V), tokens[0].tolist()
    for _ in range(max_new_tokens):
        logits = made(torch.tensor([text]))[:, -1]
        text.append(int(logits.argmax()) if choice is None else int(choice(logits)))
        if text[-1] == eos:
            break
    return toy.told(torch.tensor([text]), cache, ONCE)


def with_a_cache(model: Tensor, tokens: Tensor, cache: int, max_new_tokens: int, eos: int | None = None, choose: int | None = None):
    made, room, choice, step, out = toy.Model(model), toy.Cache(cache), None if choose is None else toy.Choice(choose, V), tokens, tokens
    while out.shape[1] < tokens.shape[1] + max_new_tokens:
        logits = made(step, cache=room)[:, -1]
        step = (logits.argmax(-1) if choice is None else choice(logits))[:, None]
        out = torch.cat((out, step), dim=1)
        if int(step) == eos:
            break
    return toy.told(out, cache, ONCE)


def cut_at_eos(model: Tensor, tokens: Tensor, cache: int, max_new_tokens: int, eos: int | None = None, choose: int | None = None):
    """Write all of it, then cut behind the first eos that was written."""
    _, row, _ = with_a_cache(model, tokens, cache, max_new_tokens, None, choose)
    new = row[tokens.shape[1] : tokens.shape[1] + max_new_tokens].tolist()
    new = new[: new.index(eos) + 1] if eos in new else new
    return toy.told(torch.cat((tokens, torch.tensor([new], dtype=torch.int64)), dim=1), cache, ONCE)


def _table(g: torch.Generator, prompt: list[int], steps: int, choose: int | None = None, zero: int | None = None) -> tuple[Tensor, list[int]]:
    """A model [2, V, V] that writes `steps` different tokens after this prompt, none of them the prompt's last one, 0 at place `zero` or nowhere; and those."""
    for _ in range(2000):
        table = normal(g, 2, V, V)
        new = token_by_token(table, torch.tensor([prompt]), len(prompt) + steps, steps, None, choose)[1][len(prompt) : -2].tolist()
        if len({*new, 0, prompt[-1]}) == steps + (2 if zero is None else 1) and (zero is None or new[zero] == 0):
            return table, new
    raise AssertionError("no such model was drawn")


def _probes(g: torch.Generator) -> list[Probe]:
    axes, probes = ("token",), []

    def add(
        name: str, prompt: list[int], new: int, stop: int | None = None, choose: int | None = None, eos: int | None = None, diagnose: bool = True,
        zero: int | None = None,
    ):  # fmt: skip
        table, written = _table(g, prompt, 5 if zero is None else zero + 1, choose, zero)
        ends = written[stop] if stop is not None else eos
        given = {key: value for key, value in (("eos", ends), ("choose", choose)) if value is not None}
        probes.append(Probe(name, (table, torch.tensor([prompt]), len(prompt) + new, new), given, axes=axes, diagnose=diagnose))

    add("3 tokens after a prompt of 2", [4, 2], 3)
    add("stops at eos, the third of 5", [1, 7, 3], 5, stop=2)
    add("eos comes first", [5, 6], 4, stop=0)
    add("eos stands in the prompt, not in what is written", [0, 3, 8], 4, eos=0)
    add("choose is given", [2, 2, 6, 1], 5, choose=0)
    add("no new token", [3, 1, 4], 0)
    add("one new token after a prompt of 1", [6], 1, diagnose=False)
    add("choose is given, stops at eos", [7, 5], 6, stop=3, choose=1, diagnose=False)
    add("stops at eos, which is token 0", [4, 7], 4, stop=1, zero=1, diagnose=False)
    add("a prompt of 30", [(3 * i + 1) % V for i in range(30)], 5, diagnose=False)
    return probes


def _body(loop: str) -> str:
    return f"def generate(model, tokens, cache, max_new_tokens, eos=None, choose=None):\n    choose = choose or (lambda x: x.argmax(-1))\n{loop}"


GENERATE = Check(
    exercise="generate",
    probes=_probes,
    reference=token_by_token,
    baselines=(token_by_token, with_a_cache, cut_at_eos),
    harness=HARNESS,
    returns="a tensor of tokens; with how they were read that is (form, tokens, work)",
    mutants=(
        Mutant(
            "whole-text-every-step",
            "The whole text went into the model at every step, into the cache as well: it now holds everything several times. After the prompt, only the token that "
            "was chosen last goes in.",
            edits=(
                ("step = chosen[:, None]\n        written.append(step)", "written.append(chosen[:, None])\n        step = torch.cat(written, dim=1)"),
            ),
        ),
        Mutant(
            "no-cache",
            "The tokens are right, and the cache was never used: every step reads the whole text again, which is what this chapter wants to avoid. "
            "Hand `cache` to the model at every call.",
            body=_body(
                "    out = tokens.clone()\n    for _ in range(max_new_tokens):\n        chosen = choose(model(out)[:, -1])\n"
                "        out = torch.cat((out, chosen[:, None]), dim=1)\n        if eos is not None and int(chosen) == eos:\n            break\n    return out\n"
            ),
        ),
        Mutant(
            "prompt-token-by-token",
            "The tokens are right, and the prompt went in one token at a time. The model reads any number of tokens in one call, and one call reads its weights once: "
            "hand it the whole prompt.",
            body=_body(
                "    for i in range(tokens.shape[1] if max_new_tokens else 0):\n        logits = model(tokens[:, i:i + 1], cache=cache)\n    out = tokens.clone()\n"
                "    for n in range(max_new_tokens):\n        chosen = choose(logits[:, -1])\n        out = torch.cat((out, chosen[:, None]), dim=1)\n"
                "        if n + 1 == max_new_tokens or int(chosen) == eos:\n            break\n"
                "        logits = model(chosen[:, None], cache=cache)\n    return out\n"
            ),
        ),
        Mutant(
            "last-prompt-token-twice",
            "The prompt's last token was read twice: once in the prefill, and again as the first step. The first step's input is the token that the prefill chose.",
            body=_body(
                "    out = tokens.clone()\n    if max_new_tokens:\n        model(tokens, cache=cache)\n    step = tokens[:, -1:]\n"
                "    for _ in range(max_new_tokens):\n        chosen = choose(model(step, cache=cache)[:, -1])\n"
                "        step = chosen[:, None]\n        out = torch.cat((out, step), dim=1)\n"
                "        if eos is not None and int(chosen) == eos:\n            break\n    return out\n"
            ),
        ),
        Mutant(
            "first-position",
            "The choice was made from the first position's logits. In the prefill every position has a row; the next token follows from the last one.",
            edits=(("cache=cache)[:, -1])", "cache=cache)[:, 0])"),),
        ),
        Mutant(
            "last-but-one",
            "The choice was made from the last row but one: that is the model's guess at a token which is there already.",
            edits=(("cache=cache)[:, -1])", "cache=cache)[:, -2:][:, 0])"),),
        ),
        Mutant(
            "eos-not-kept",
            "The end-of-text token is missing: it is kept as the last token, so that whoever reads on knows that the text has ended.",
            edits=(
                (
                    "        step = chosen[:, None]\n        written.append(step)\n        if eos is not None and int(chosen[0]) == eos:\n            break\n",
                    "        if eos is not None and int(chosen[0]) == eos:\n            break\n        step = chosen[:, None]\n        written.append(step)\n",
                ),
            ),
        ),
        Mutant(
            "eos-ignored",
            "Right where no eos comes. Where it does, the writing went on: look at each token once it is chosen.",
            edits=(("if eos is not None and int(chosen[0]) == eos:", "if False:"),),
        ),
        Mutant(
            "eos-of-0",
            "Right for every eos but 0, where `if eos` is false: token 0 is a token, and the one that ends this course's texts. Compare with None.",
            edits=(("if eos is not None and int(chosen[0]) == eos:", "if eos and int(chosen[0]) == eos:"),),
        ),
        Mutant(
            "prompt-twice",
            "The prompt went into the cache twice: one call before the loop, and its first step again. The first call's logits choose the first token.",
            edits=(("    written = [tokens]\n", "    written = [tokens]\n    if max_new_tokens:\n        model(tokens, cache=cache)\n"),),
        ),
        Mutant(
            "one-past-eos",
            "One token more was written after eos: look at the token as soon as it is chosen, before the next one.",
            edits=(("if eos is not None and int(chosen[0]) == eos:", "if eos is not None and len(written) > 2 and int(written[-2][0, 0]) == eos:"),),
        ),
        Mutant(
            "eos-in-the-prompt",
            "An eos in the prompt stopped the writing. Many prompts begin with that token; only one that is *chosen* ends the text.",
            edits=(("if eos is not None and int(chosen[0]) == eos:", "if eos is not None and eos in torch.cat(written, dim=1):"),),
        ),
        Mutant(
            "choose-ignored",
            "Right without `choose`; where it is given, the largest logit was taken all the same.",
            edits=(("if choose is None:", "if True:"),),
        ),
        Mutant(
            "choose-once-more",
            "`choose` was called once more than there are tokens. It may draw a random number each time: call it once for every token that is written.",
            body=_body(
                "    out = tokens.clone()\n    if max_new_tokens == 0:\n        return out\n    chosen = choose(model(tokens, cache=cache)[:, -1])\n"
                "    for _ in range(max_new_tokens):\n        out = torch.cat((out, chosen[:, None]), dim=1)\n        if int(chosen) == eos:\n"
                "            break\n        chosen = choose(model(chosen[:, None], cache=cache)[:, -1])\n    return out\n"
            ),
        ),
        Mutant(
            "only-the-new",
            "What was written came back without the prompt. Return both, [1, N + written].",
            edits=(("return torch.cat(written, dim=1)", "return torch.cat([tokens[:, :0], *written[1:]], dim=1)"),),
        ),
        Mutant(
            "one-too-many",
            "One token more than max_new_tokens was written. The prefill already gives the first of them.",
            edits=(("range(max_new_tokens)", "range(max_new_tokens + 1)"),),
        ),
        Mutant(
            "one-too-few",
            "One token too few was written: the first new token comes from the prefill, and counts.",
            edits=(("range(max_new_tokens)", "range(max_new_tokens - 1)"),),
        ),
        Mutant(
            "prefill-forgotten",
            "The prompt was not read: only its last token went in. The model knows what its cache holds, and nothing else.",
            edits=(("step = tokens\n", "step = tokens[:, -1:]\n"),),
        ),
    ),
    right=RIGHT,
)
