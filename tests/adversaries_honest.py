"""Adversaries 32 to 48: honest mistakes in attention and its kernels. Data only."""

from adversaries import HOST, KERNEL, Adversary, attention, causal, function, kernel, loop, plain, softmax, tiled

_WRONG = ("expected", "got")
_SCALE = "q.shape[-1] ** -0.5 if scale is None else scale"


def _tiled(number: int, name: str, *edits: tuple[str, str], words: tuple[str, ...]) -> Adversary:
    return Adversary(number, name, "tiled_attention", loop(*edits), words)


def _plain(number: int, name: str, old: str, new: str, words: tuple[str, ...]) -> Adversary:
    return Adversary(number, name, "attention", plain(old, new), words)


def _kernel(number: int, name: str, old: str, new: str, words: tuple[str, ...]) -> Adversary:
    """double_and_mask with a mistake in its kernel or its launch."""
    text = kernel(*HOST)
    assert text.count(old) == 1, old
    return Adversary(number, name, "double_and_mask", text.replace(old, new), words)


def _lse(name: str, last: str, words: tuple[str, ...]) -> Adversary:
    lines = (
        "m = l = None",
        "for t in tiles:",
        "    top = t.amax(-1)",
        "    if m is None: m, l = torch.full_like(top, -torch.inf), torch.zeros_like(top)",
        "    new = torch.maximum(m, top)",
        "    safe = new.masked_fill(new.isneginf(), 0)",
        "    l = l * (m - safe).exp() + (t - safe[..., None]).exp().sum(-1)",
        "    m = new",
        f"return {last}",
    )
    return Adversary(47, name, "logsumexp_over_tiles", function("logsumexp_over_tiles(tiles)", lines), words)


_MASK = "s = s.masked_fill(~mask, float('-inf'))"
_ALPHA = "alpha = (m - safe).exp()"
_TAIL = ("for j in range(0, k.shape[-2], tile):", "for j in range(0, k.shape[-2] // tile * tile, tile):")

HONEST = (
    _kernel(32, "the tail has no program", "triton.cdiv(x.numel(), 16)", "x.numel() // 16", ("last, partial tile has no program",)),
    _kernel(32, "one tile only", "keep_kernel[(triton.cdiv(x.numel(), 16),)]", "keep_kernel[(1,)]", ("NaN", "expected")),
    _tiled(32, "whole tiles only", _TAIL, words=_WRONG),
    Adversary(
        32,
        "tail keys counted with a logit of 0",
        "tiled_attention",
        tiled(
            f"scale = {_SCALE}",
            "pad = -k.shape[-2] % tile",
            "k, v = F.pad(k, (0, 0, 0, pad)), F.pad(v, (0, 0, 0, pad))",
            "l, o, m = 0, 0, None",
            "for j in range(0, k.shape[-2], tile):",
            "    s = q @ k[..., j:j + tile, :].mT * scale",
            "    top = s.amax(-1, True) if m is None else torch.maximum(m, s.amax(-1, True))",
            "    alpha = 0 if m is None else (m - top).exp()",
            "    p = (s - top).exp()",
            "    l, o, m = l * alpha + p.sum(-1, True), o * alpha + p @ v[..., j:j + tile, :], top",
            "return o / l",
        ),
        _WRONG,
    ),
    Adversary(33, "a width of 64 only", "attention", attention("return torch.softmax(q @ k.mT / 8, -1) @ v"), ("expected",)),
    Adversary(
        33,
        "a power of two only",
        "attention",
        attention("d = q.shape[-1]", "assert d & (d - 1) == 0, 'D must be a power of two'", "return torch.softmax(q @ k.mT / d ** 0.5, -1) @ v"),
        ("AssertionError", "D must be a power of two"),
    ),
    _plain(33, "the width rounded up to a power of two", _SCALE, "(1 << (q.shape[-1] - 1).bit_length()) ** -0.5 if scale is None else scale", _WRONG),
    _plain(34, "the first batch's keys for everyone", "q @ k.mT", "q @ k[:1].mT if k.dim() > 2 else q @ k.mT", _WRONG),
    _plain(34, "the first head's values for everyone", ") @ v", ") @ (v[..., :1, :, :] if v.dim() > 3 else v)", _WRONG),
    Adversary(
        34,
        "three dimensions are too many",
        "attention",
        attention("n, d = q.shape", "return torch.softmax(q @ k.T / d ** 0.5, -1) @ v"),
        ("ValueError",),
    ),
    Adversary(35, "h % H_KV", "expand_kv_heads", function("expand_kv_heads(x, heads)", ("return x.repeat(1, heads // x.shape[1], 1, 1)",)), _WRONG),
    Adversary(
        35,
        "h % H_KV as an index",
        "expand_kv_heads",
        function("expand_kv_heads(x, heads)", ("return x[:, torch.arange(heads) % x.shape[1]]",)),
        _WRONG,
    ),
    Adversary(
        35, "the first head for all", "expand_kv_heads", function("expand_kv_heads(x, heads)", ("return x[:, :1].repeat(1, heads, 1, 1)",)), _WRONG
    ),
    Adversary(
        36, "strictly below the diagonal", "causal_mask", causal("return torch.arange(n_kv) < torch.arange(n_q)[:, None] + n_kv - n_q"), _WRONG
    ),
    Adversary(36, "one key too far", "causal_mask", causal("return torch.arange(n_kv) <= torch.arange(n_q)[:, None] + n_kv - n_q + 1"), _WRONG),
    Adversary(36, "flipped", "causal_mask", causal("return torch.arange(n_kv) >= torch.arange(n_q)[:, None] + n_kv - n_q"), _WRONG),
    Adversary(36, "top left", "causal_mask", causal("return torch.ones(n_q, n_kv, dtype=torch.bool).tril()"), _WRONG),
    Adversary(36, "hidden and kept exchanged", "causal_mask", causal("return torch.ones(n_q, n_kv, dtype=torch.bool).triu(1 + n_kv - n_q)"), _WRONG),
    _tiled(
        37,
        "only whole tiles are hidden",
        (
            "if mask is not None: s = s.masked_fill(~mask[..., j:j + tile], -float('inf'))",
            "if mask is not None and not mask[..., j:j + tile].any(): continue",
        ),
        words=_WRONG,
    ),
    _plain(38, "a mask of 0", _MASK, "s = s * mask", ("Hidden scores were set to 0", "only -inf weighs nothing")),
    _plain(38, "a mask of -10", "float('-inf')", "-10.0", _WRONG),
    _plain(38, "a mask of -1e4", "float('-inf')", "-1e4", _WRONG),
    _plain(38, "a mask that is added", _MASK, "s = s + mask", ("added to the scores",)),
    Adversary(
        39,
        "the mask after softmax",
        "attention",
        attention(f"w = torch.softmax(q @ k.mT * ({_SCALE}), -1)", "if mask is not None: w = w * mask", "return w @ v"),
        ("set to 0 after the softmax", "no longer sums to 1"),
    ),
    _plain(40, "NaN where a row is empty", "torch.nan_to_num(s.softmax(-1))", "s.softmax(-1)", ("NaN", "empty")),
    _tiled(40, "NaN where a row is empty, in tiles", ("safe = new.masked_fill(new.isneginf(), 0)", "safe = new"), words=("NaN",)),
    Adversary(
        40,
        "the mean where a row is empty",
        "attention",
        attention(f"s = q @ k.mT * ({_SCALE})", "if mask is not None: s = s.masked_fill(~mask, -1e9)", "return s.softmax(-1) @ v"),
        ("every key is hidden", "must be zeros"),
    ),
    Adversary(
        41, "no maximum", "safe_softmax", softmax("e = x.exp()", "return torch.nan_to_num(e / e.sum(-1, True))"), ("Wrong only in rows 1-2", *_WRONG)
    ),
    Adversary(
        41,
        "the maximum of the whole matrix",
        "safe_softmax",
        softmax("e = (x - x.max()).exp()", "s = e.sum(-1, True)", "return e / s.masked_fill(s == 0, 1)"),
        _WRONG,
    ),
    _tiled(
        41,
        "a running maximum that starts at 0",
        ("m = q.new_full((*q.shape[:-1], 1), -float('inf'))", "m = q.new_zeros((*q.shape[:-1], 1))"),
        words=_WRONG,
    ),
    _tiled(
        41,
        "the maximum of the current tile",
        ("new = torch.maximum(m, s.amax(-1, True))", "new = s.amax(-1, True)"),
        words=("current tile's own", "overflows"),
    ),
    _tiled(42, "acc is not rescaled", ("o = o * alpha + p", "o = o + p"), words=("`acc` is not rescaled", "row_max")),
    _tiled(42, "the sum is not rescaled", ("l = l * alpha + p.sum", "l = l + p.sum"), words=("`row_sum` is not rescaled",)),
    _tiled(
        42,
        "neither is rescaled",
        ("l = l * alpha + p.sum", "l = l + p.sum"),
        ("o = o * alpha + p", "o = o + p"),
        words=("Neither `row_sum` nor `acc` was rescaled",),
    ),
    _tiled(
        42,
        "alpha the wrong way round",
        (_ALPHA, "alpha = torch.where(m.isneginf(), 0.0, (safe - m).exp())"),
        words=("exp(new - old) where exp(old - new) was meant",),
    ),
    Adversary(
        43,
        "tiles averaged",
        "tiled_attention",
        tiled(
            f"scale = {_SCALE}",
            "parts = []",
            "for j in range(0, k.shape[-2], tile):",
            "    s = q @ k[..., j:j + tile, :].mT * scale",
            "    if mask is not None: s = s.masked_fill(~mask[..., j:j + tile], -float('inf'))",
            "    e = (s - s.amax(-1, True).clamp_min(-1e30)).exp()",
            "    parts.append(e / e.sum(-1, True).clamp_min(1e-30) @ v[..., j:j + tile, :])",
            "return torch.stack(parts).mean(0)",
        ),
        ("the tiles were averaged", "Tiles do not weigh the same"),
    ),
    _tiled(43, "no last division", ("return o / l.masked_fill(l == 0, 1)", "return o"), words=("never divided by row_sum",)),
    _tiled(
        43,
        "divided at every tile",
        ("    m = new\n", "    o = o / l.masked_fill(l == 0, 1)\n        m = new\n"),
        ("return o / l.masked_fill(l == 0, 1)", "return o"),
        words=("divided by row_sum inside the loop",),
    ),
    _tiled(
        44,
        "exp2 of natural scores",
        ("alpha = (m - safe).exp()", "alpha = (m - safe).exp2()"),
        ("p = (s - safe).exp()", "p = (s - safe).exp2()"),
        words=_WRONG,
    ),
    _tiled(44, "exp2 for the weights only", ("p = (s - safe).exp()", "p = (s - safe).exp2()"), words=_WRONG),
    _plain(45, "no scale", f"q @ k.mT * ({_SCALE})", "q @ k.mT * (1.0 if scale is None else scale)", _WRONG),
    _plain(45, "1 / D", "q.shape[-1] ** -0.5", "1 / q.shape[-1]", _WRONG),
    _plain(45, "1 / sqrt(N)", "q.shape[-1] ** -0.5", "k.shape[-2] ** -0.5", _WRONG),
    _plain(45, "sqrt(D)", "q.shape[-1] ** -0.5", "q.shape[-1] ** 0.5", _WRONG),
    _plain(45, "its own scale whatever was asked", f"({_SCALE})", "q.shape[-1] ** -0.5", _WRONG),
    Adversary(46, "float64 back", "attention", plain(") @ v", ").double() @ v.double()"), ("has the dtype float64; expected float32",)),
    Adversary(
        46,
        "half precision back",
        "safe_softmax",
        softmax("m = x.amax(-1, True)", "e = (x - m.masked_fill(m.isneginf(), 0)).exp()", "return torch.nan_to_num(e / e.sum(-1, True)).half()"),
        ("has the dtype float16",),
    ),
    Adversary(
        46,
        "on another device",
        "attention",
        plain(") @ v", ") @ v.to('cpu')").replace("return ", "return torch.empty_like(q, device='meta') if q.dim() else "),
        ("on the device meta",),
    ),
    Adversary(46, "a dimension too many", "attention", plain(") @ v", ") @ v[None]"), ("has the shape",)),
    Adversary(46, "transposed", "attention", attention("return (torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1) @ v).mT"), ("has the shape",)),
    Adversary(
        46,
        "contiguous inputs only",
        "safe_softmax",
        softmax(
            "r = x.view(-1).view(-1, x.shape[-1])",
            "m = r.amax(-1, True)",
            "e = (r - m.masked_fill(m.isneginf(), 0)).exp()",
            "s = e.sum(-1, True)",
            "return (e / s.masked_fill(s == 0, 1)).view(x.shape)",
        ),
        ("RuntimeError", "view"),
    ),
    Adversary(
        46,
        "strides taken for granted",
        "row_shares",
        function(
            "row_shares(x)",
            (
                "r = torch.as_strided(x, x.shape, torch.empty(x.shape).stride(), x.storage_offset())",
                "return torch.nan_to_num(r.abs() / r.abs().sum(-1, True))",
            ),
        ),
        _WRONG,
    ),
    Adversary(
        46,
        "a stride of 0 written over",
        "row_shares",
        function("row_shares(x)", ("y = x.abs()", "y /= y.sum(-1, True)", "x[0] = y[0]", "return torch.nan_to_num(y)")),
        ("`abs_` writes",),
    ),
    _plain(47, "weights in half precision", "s.softmax(-1)", "s.softmax(-1).half().to(q.dtype)", _WRONG),
    _plain(47, "scores in half precision", "q @ k.mT * ", "(q.half() @ k.half().mT).to(q.dtype) * ", _WRONG),
    _tiled(
        47,
        "acc in half precision",
        ("o = o * alpha + p @ v[..., j:j + tile, :]", "o = (o * alpha + p @ v[..., j:j + tile, :]).half().to(q.dtype)"),
        words=_WRONG,
    ),
    _lse("log-sum-exp to base 2", "m + l.log2()", _WRONG),
    _lse("log-sum-exp all to base 2", "(m + l.log()) * 1.4426950408889634", _WRONG),
    _lse("the maximum is missing", "l.log()", _WRONG),
    _lse("the logarithm is missing", "m + l", _WRONG),
    _kernel(
        48,
        "a load past the end",
        "x = tl.load(x_ptr + at, mask=inside, other=0.0)",
        "x = tl.load(x_ptr + at)",
        ("`x_ptr`: element 21 of 21", "turned off"),
    ),
    _kernel(48, "a store past the end", "0.0), mask=inside)", "0.0))", ("a store outside `out_ptr`", "element 21 of 21")),
    _kernel(48, "an element before the start", "x = tl.load(x_ptr + at, mask", "x = tl.load(x_ptr + at - 1, mask", ("outside `x_ptr`: element -1",)),
    _kernel(48, "memory that nobody wrote", "tl.where(keep != 0, x * 2.0, 0.0), mask=inside", "x * 2.0, mask=inside & (keep != 0)", ("NaN",)),
    Adversary(
        48,
        "memory that nobody wrote, in torch",
        "row_shares",
        function(
            "row_shares(x)",
            ("y = torch.empty_like(x)", "keep = x.abs().sum(-1) > 0", "y[keep] = x.abs()[keep] / x.abs().sum(-1, True)[keep]", "return y"),
        ),
        ("NaN", "expected 0.0000"),
    ),
    Adversary(
        48,
        "noise",
        "row_shares",
        function("row_shares(x)", ("return torch.nan_to_num(x.abs() / x.abs().sum(-1, True)) + 1e-3 * torch.rand(x.shape)",)),
        _WRONG,
    ),
    Adversary(
        48, "a dropout left on", "attention", plain("torch.nan_to_num(s.softmax(-1))", "F.dropout(torch.nan_to_num(s.softmax(-1)), 0.1)"), _WRONG
    ),
    Adversary(
        48,
        "N x N",
        "tiled_attention",
        tiled(
            f"s = q @ k.mT * ({_SCALE})",
            "if mask is not None: s = s.masked_fill(~mask, -torch.inf)",
            "e = (s - s.amax(-1, True).clamp_min(-1e30)).exp()",
            "return e @ v / e.sum(-1, True).clamp_min(1e-30)",
        ),
        ("largest tensor you computed", "matrix of scores"),
    ),
    Adversary(
        48,
        "reads everything twice",
        "double_and_mask",
        kernel(*HOST, jit=KERNEL.replace("    keep = tl.load", "    x = tl.load(x_ptr + at, mask=inside, other=0.0)\n    keep = tl.load")),
        ("requested 144 bytes", "Each number is needed once"),
    ),
)
