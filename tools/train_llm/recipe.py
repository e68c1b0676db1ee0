"""The training itself: shapes of the two models, batches, schedule, the loop. Knows nothing of text: it sees arrays of token ids."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib.llm.config import ModelConfig
from course_lib.llm.model import Llama

CONTEXT = 1024


def target_config(vocab: int) -> ModelConfig:
    """About 8 million parameters, D = 64, three query heads to a K/V head."""
    return ModelConfig(
        vocab, 384, num_layers=5, num_heads=6, num_kv_heads=2, head_dim=64, intermediate_size=896, max_positions=CONTEXT, bos_token=0, eos_tokens=(0,)
    )


def draft_config(vocab: int) -> ModelConfig:
    """About a tenth of the target."""
    return ModelConfig(
        vocab, 128, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=32, intermediate_size=320, max_positions=CONTEXT, bos_token=0, eos_tokens=(0,)
    )


@dataclass(frozen=True)
class Recipe:
    """One training run."""

    name: str
    epochs: float
    seconds: float  # the run takes fewer steps where the machine is slower than this
    dropout: float = 0.1
    rate: float = 3e-3
    decay: float = 0.1  # weight decay
    batch: int = 32  # sequences of CONTEXT tokens
    warm_up: float = 0.03  # shares of all steps
    flat: float = 0.4
    evaluations: int = 20


def initialise(model: Llama, seed: int) -> Llama:
    """Normal weights of 0.02, smaller for what is added to the residual stream."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            std = 0.02 / math.sqrt(2 * model.config.num_layers) if residual else 0.02
            weight.data.normal_(0, std, generator=generator)
        else:
            weight.data.fill_(0.0 if name.endswith("bias") else 1.0)
    return model


def batches(ids: np.ndarray, batch: int, seed: int):
    """Endless [batch, CONTEXT + 1] int64 arrays: each epoch cuts the text at another offset and shuffles the pieces."""
    random = np.random.default_rng(seed)
    while True:
        first = int(random.integers(CONTEXT))
        starts = first + CONTEXT * np.arange((len(ids) - first - 1) // CONTEXT)
        random.shuffle(starts)
        for i in range(0, len(starts) - batch + 1, batch):
            yield np.stack([ids[s : s + CONTEXT + 1] for s in starts[i : i + batch]]).astype(np.int64)


def add_dropout(model: Llama, share: float) -> list:
    """Dropout on what each layer adds to the residual stream, as hooks: the model itself has none. Returns the hooks' handles."""
    if not share:
        return []
    return [
        module.register_forward_hook(lambda module, _, out: F.dropout(out, share, module.training))
        for layer in model.layers
        for module in (layer.self_attn.o_proj, layer.mlp.down_proj)
    ]


def scheduled(step: int, steps: int, recipe: Recipe) -> float:
    """The learning rate: up in a line, flat, then down in a line to nothing."""
    warm, flat = recipe.warm_up * steps, recipe.flat * steps
    if step < warm:
        return recipe.rate * (step + 1) / (warm + 1)
    return recipe.rate * min(1.0, max(0.0, (steps - step) / max(steps - flat, 1)))


@torch.no_grad()
def held_out_loss(forward: Callable, ids: np.ndarray, device: str, dtype: torch.dtype, batch: int = 32) -> float:
    """Mean cross entropy in nats a token, over the whole text in pieces of CONTEXT."""
    pieces = (len(ids) - 1) // CONTEXT
    starts = CONTEXT * np.arange(pieces)
    total = 0.0
    for i in range(0, pieces, batch):
        rows = torch.from_numpy(np.stack([ids[s : s + CONTEXT + 1] for s in starts[i : i + batch]]).astype(np.int64)).to(device)
        with torch.autocast(device.split(":")[0], dtype, enabled=dtype != torch.float32):
            logits = forward(rows[:, :-1])
        total += F.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten(), reduction="sum").item()
    return total / (pieces * CONTEXT)


def train(model: Llama, recipe: Recipe, ids: dict[str, np.ndarray], device: str, teacher: Llama | None = None, compiled: bool = False) -> dict:
    """Train in place; the model ends with the weights of its best evaluation. Returns the log.

    teacher   distil: the loss becomes the divergence from its distribution, and a tenth of the usual cross entropy
    """
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    handles = add_dropout(model, recipe.dropout)
    model.angles(CONTEXT, None)
    loss_of = torch.compile(_loss) if compiled else _loss
    matrices = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    groups = [{"params": matrices, "weight_decay": recipe.decay}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.95), fused=device.startswith("cuda"))
    steps = max(2, int(recipe.epochs * (len(ids["train"]) // (CONTEXT * recipe.batch))))
    source = batches(ids["train"], recipe.batch, seed=1)
    log: dict = {"recipe": vars(recipe), "curve": [], "parameters": sum(p.numel() for p in model.parameters())}
    best, started, clock, step = (math.inf, None), time.perf_counter(), None, 0
    running = torch.zeros((), device=device)
    seen = 0
    while step < steps:
        rows = torch.from_numpy(next(source))
        rows = rows.pin_memory().to(device, non_blocking=True) if device.startswith("cuda") else rows
        rate = scheduled(step, steps, recipe)
        for group in optimiser.param_groups:
            group["lr"] = rate
        model.train()
        with torch.autocast(device.split(":")[0], dtype, enabled=dtype != torch.float32):
            loss = loss_of(model, teacher, rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        running += loss.detach()
        seen += 1
        step += 1
        if step == 10:  # the compiler is done: from here on the time of a step is known
            running.item()
            clock = time.perf_counter()
        if step == 40 and clock is not None:
            running.item()
            each = (time.perf_counter() - clock) / 30
            left = recipe.seconds - (time.perf_counter() - started)
            steps = max(60, min(steps, 40 + int(0.93 * left / each)))
            log["seconds a step"] = each
            print(f"{recipe.name}: {1000 * each:.1f} ms a step, {recipe.batch * CONTEXT / each:,.0f} tokens/s, {steps} steps", flush=True)
        if step % max(1, steps // recipe.evaluations) == 0 or step == steps:
            model.eval()
            valid = held_out_loss(model, ids["valid"], device, dtype)
            log["curve"].append({"step": step, "train": running.item() / seen, "valid": valid, "rate": rate})
            print(
                f"{recipe.name} {step:6d}/{steps}  train {running.item() / seen:.4f}  valid {valid:.4f}  {time.perf_counter() - started:.0f} s",
                flush=True,
            )
            running.zero_()
            seen = 0
            if valid < best[0]:
                best = valid, {name: weight.detach().clone() for name, weight in model.state_dict().items()}
    for handle in handles:
        handle.remove()
    model.load_state_dict(best[1])
    model.eval()
    log |= {"steps": steps, "seconds": time.perf_counter() - started, "valid": best[0], "tokens seen": steps * recipe.batch * CONTEXT}
    return log


def _loss(model: Llama, teacher: Llama | None, rows: Tensor) -> Tensor:
    """Cross entropy of the next token; with a teacher, mostly the divergence from its distribution."""
    logits = model(rows[:, :-1]).float()
    truth = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
    if teacher is None:
        return truth
    with torch.no_grad():
        wanted = teacher(rows[:, :-1]).float().log_softmax(-1)
    away = F.kl_div(logits.log_softmax(-1).flatten(0, 1), wanted.flatten(0, 1), reduction="batchmean", log_target=True)
    return away + 0.1 * truth
