"""What the variants of the flash kernels must give: windows, packed sequences, changed scores. As `benchmarks.kernel_trials`, whose rule it is.

A window is a mask; packed sequences are judged as sequences one by one, laid end to end; changed scores come with two ways to change them.
"""

import random

import torch
from torch import Tensor

from benchmarks.gradient_trials import backward_trial, saved_rows, trained, training_trial
from benchmarks.kernel_trials import attention_trial, attention_trial_masked, mask_of

WINDOW = ("flash_window", "flash_window_backward", "flash_window_attention")
PACKED = ("flash_varlen", "flash_varlen_backward", "flash_varlen_attention")
CHANGED = ("flash_score_mod",)
KERNELS = (*WINDOW, *PACKED, *CHANGED)


def window_mask(n_q: int, n_kv: int, window: int, device="cpu") -> Tensor:
    """[N_Q, N_KV] bool, True = keep: the last `window` keys of each query, bottom-right."""
    back = torch.arange(n_q, device=device)[:, None] + n_kv - n_q - torch.arange(n_kv, device=device)[None, :]
    return (back >= 0) & (back < window)


def changes(slopes: Tensor | None, soft_cap: float | None, n_q: int, n_kv: int) -> tuple:
    """Two ways to compute the changed scores from scaled ones: tanh as torch has it, and tanh by exponentials."""

    def penalty(s: Tensor) -> Tensor:
        if slopes is None:
            return s
        back = torch.arange(n_q, device=s.device)[:, None] + n_kv - n_q - torch.arange(n_kv, device=s.device)[None, :]
        return s - slopes.to(s.dtype)[:, None, None] * back.abs()

    def by_tanh(s: Tensor) -> Tensor:
        return penalty(s if soft_cap is None else soft_cap * torch.tanh(s / soft_cap))

    def by_exp(s: Tensor) -> Tensor:
        return penalty(s if soft_cap is None else soft_cap - 2 * soft_cap / (1 + torch.exp(s * (2 / soft_cap))))

    return by_tanh, by_exp


# ---------------------------------------------------------------- packed sequences


def beginnings(lengths: list[int], device="cpu") -> Tensor:
    return torch.tensor([0, *lengths], device=device).cumsum(0).to(torch.int32)


def _alone(x: Tensor, begin: int, n: int) -> Tensor:
    """One sequence out of packed [T, H, D] (or rows [H, T]), as [1, H, N, D] ([1, H, N])."""
    return x[begin : begin + n].transpose(0, 1)[None] if x.dim() == 3 else x[None, :, begin : begin + n]


def _packed(x: Tensor) -> Tensor:
    """[1, H, N, D] -> [N, H, D]; [1, H, N] -> [H, N]."""
    return x[0].transpose(0, 1) if x.dim() == 4 else x[0]


def by_sequence(lengths_q: list[int], lengths_k: list[int], trial) -> tuple[tuple, list[tuple]]:
    """`trial(begin_q, n_q, begin_k, n_k)` gives (reference, orders) of one sequence; these laid end to end."""
    found, q, k = [], 0, 0
    for n_q, n_k in zip(lengths_q, lengths_k, strict=True):
        found.append(trial(q, n_q, k, n_k))
        q, k = q + n_q, k + n_k

    def joined(parts: list[tuple]) -> tuple:
        return tuple(torch.cat([_packed(x) for x in same], 0 if same[0].dim() == 4 else 1) for same in zip(*parts, strict=True))

    return joined([reference for reference, _ in found]), [joined([orders[i] for _, orders in found]) for i in range(len(found[0][1]))]


def packed_trial(q, k, v, lengths_q, lengths_k, causal, scale):
    def trial(at_q, n_q, at_k, n_k):
        return attention_trial(_alone(q, at_q, n_q), _alone(k, at_k, n_k), _alone(v, at_k, n_k), causal, scale)

    return by_sequence(lengths_q, lengths_k, trial)


def packed_backward_trial(q, k, v, dout, lse, delta, lengths_q, lengths_k, causal, scale):
    def trial(at_q, n_q, at_k, n_k):
        of_q, of_k = [_alone(x, at_q, n_q) for x in (q, dout, lse, delta)], [_alone(x, at_k, n_k) for x in (k, v)]
        return backward_trial(of_q[0], *of_k, *of_q[1:], causal, scale)

    return by_sequence(lengths_q, lengths_k, trial)


def packed_training_trial(q, k, v, dout, lengths_q, lengths_k, causal, scale):
    def trial(at_q, n_q, at_k, n_k):
        return training_trial(*(_alone(x, at, n) for x, at, n in ((q, at_q, n_q), (k, at_k, n_k), (v, at_k, n_k), (dout, at_q, n_q))), causal, scale)

    return by_sequence(lengths_q, lengths_k, trial)


def packed_rows(q, k, v, dout, lengths_q, lengths_k, causal, scale) -> tuple[Tensor, Tensor]:
    """(lse, delta) [H, T_Q] float32, as a forward pass would have left them."""

    def trial(at_q, n_q, at_k, n_k):
        one = [_alone(x, at, n) for x, at, n in ((q, at_q, n_q), (k, at_k, n_k), (v, at_k, n_k), (dout, at_q, n_q))]
        return saved_rows(*one, mask_of(n_q, n_k, causal, q.device), scale), []

    found, at = [], [0, 0]
    for n_q, n_k in zip(lengths_q, lengths_k, strict=True):
        found.append(trial(at[0], n_q, at[1], n_k)[0])
        at = [at[0] + n_q, at[1] + n_k]
    return tuple(torch.cat([pair[i][0] for pair in found], 1) for i in range(2))


# ---------------------------------------------------------------- cases of benchmarks/verify_kernels.py


def sizes(kernel: str, draw: random.Random, length, small: bool) -> dict:
    """What a case of a variant has beside the sizes of plain attention. `length(most)` draws one."""
    if kernel in WINDOW:
        return {"window": max(1, int((100 if small else 2000) ** draw.random()))}
    if kernel in PACKED:
        count = draw.choice((1, 2, 3, 5))
        lengths = [[0 if draw.random() < 0.1 else length(40 if small else 400) for _ in range(count)] for _ in "qk"]
        return {"lengths_q": lengths[0], "lengths_k": lengths[0] if draw.random() < 0.3 else lengths[1], "slack": draw.choice((0, 3))}
    return {"slopes": draw.random() < 0.6, "soft_cap": draw.choice((None, 2.0, 30.0, 50.0))}


def shapes(case: dict) -> list[tuple[int, ...]]:
    """q, k, v, dout."""
    (H, H_KV), D = case["heads"], case["D"]
    if case["kernel"] in PACKED:
        T_Q, T_K = sum(case["lengths_q"]), sum(case["lengths_k"])
        return [(T_Q, H, D), (T_K, H_KV, D), (T_K, H_KV, D), (T_Q, H, D)]
    B, N_Q, N_KV = case["B"], case["N_Q"], case["N_KV"]
    return [(B, H, N_Q, D), (B, H_KV, N_KV, D), (B, H_KV, N_KV, D), (B, H, N_Q, D)]


def prepared(case: dict, module, tensors: list[Tensor], config: dict):
    """(the call, its tensors, (reference, plain orders))."""
    q, k, v, dout = tensors
    kernel, causal, device = case["kernel"], case["causal"], q.device
    scale = q.shape[-1] ** -0.5 if case["scale"] is None else case["scale"]
    config = {"scale": case["scale"], **config}
    if kernel in PACKED:
        lengths = case["lengths_q"], case["lengths_k"]
        cu = [beginnings(one, device) for one in lengths]
        more = (*cu, *(max(one) + case["slack"] for one in lengths), causal)
        if kernel == "flash_varlen":
            return lambda: module.flash_varlen_forward(q, k, v, *more, **config), [q, k, v, *cu], packed_trial(q, k, v, *lengths, causal, scale)
        if kernel == "flash_varlen_attention":
            named = dict(zip(("cu_q", "cu_k", "max_q", "max_k", "causal"), more, strict=True), scale=case["scale"])
            return (
                lambda: trained(module.flash_varlen_attention, *tensors, **named),
                [*tensors, *cu],
                packed_training_trial(*tensors, *lengths, causal, scale),
            )
        rows = packed_rows(*tensors, *lengths, causal, scale)
        return (
            lambda: module.flash_varlen_backward(*tensors, *rows, *more, **config),
            [*tensors, *rows, *cu],
            packed_backward_trial(*tensors, *rows, *lengths, causal, scale),
        )
    n_q, n_kv = q.shape[2], k.shape[2]
    if kernel in CHANGED:
        slopes = torch.linspace(0.5, 0.01, q.shape[1], device=device) if case["slopes"] else None
        ways = changes(slopes, case["soft_cap"], n_q, n_kv)
        return (
            lambda: module.flash_score_mod_forward(q, k, v, slopes, case["soft_cap"], causal, **config),
            [q, k, v],
            attention_trial_masked(q, k, v, mask_of(n_q, n_kv, causal, device), scale, ways),
        )
    window = case["window"]
    mask = window_mask(n_q, n_kv, window, device)
    if kernel == "flash_window":
        return lambda: module.flash_window_forward(q, k, v, window, **config), [q, k, v], attention_trial_masked(q, k, v, mask, scale)
    if kernel == "flash_window_attention":
        return (
            lambda: trained(module.flash_window_attention, *tensors, window=window, scale=case["scale"]),
            tensors,
            training_trial(*tensors, scale=scale, mask=mask),
        )
    rows = saved_rows(*tensors, mask, scale)
    return (
        lambda: module.flash_window_backward(*tensors, *rows, window, **config),
        [*tensors, *rows],
        backward_trial(*tensors, *rows, scale=scale, mask=mask),
    )
