"""The memory calculator of chapter 08: model, dtype, context, batch and GPUs; what lies in memory, and how many sequences fit."""

from course_lib import datasheets, model_sizes
from course_lib.figures.core import Picture, many, number, size
from course_lib.figures.kv_cache import memory_bar
from course_lib.figures.rows import whole
from course_lib.widgets.shell import Shell, controls_available, without_controls

MODELS = tuple(model_sizes.SIZES)
GPUS = tuple(datasheets.SHEETS)
WEIGHTS = ("fp16", "fp8", "int4")
CACHES = ("fp16", "fp8")
CONTEXTS = tuple(2**i for i in range(9, 18))  # 512 to 131,072
BATCHES = tuple(2**i for i in range(11))
COUNTS = (1, 2, 4, 8)


def fits(model: str, gpu: str, tokens: int, gpus: int = 1, weights: str = "fp16", cache: str = "fp16") -> int:
    """Sequences of `tokens` tokens that fit beside the weights and one prompt's prefill."""
    one = model_sizes.size(model)
    each = one.cache_bytes(tokens, 1, model_sizes.BYTES_EACH[cache])
    left = gpus * datasheets.sheet(gpu).memory_gb * 1e9 - one.params * model_sizes.BYTES_EACH[weights] - one.prefill_activations(tokens)
    return max(0, int(left // each))


def state(
    model: str = "Llama-2-7B", gpu: str = "A100", tokens: int = 4096, batch: int = 16, weights: str = "fp16", cache: str = "fp16", gpus: int = 1
) -> Picture:
    """The picture of one choice. Several GPUs: their memories together, everything split evenly."""
    tokens, batch, gpus = whole(tokens, "tokens"), whole(batch, "batch"), whole(gpus, "gpus")
    for name, value, known in (("weights", weights, model_sizes.BYTES_EACH), ("cache", cache, model_sizes.BYTES_EACH)):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; choose one of {', '.join(known)}")
    one, sheet = model_sizes.size(model), datasheets.sheet(gpu)
    parts = {
        "weights": one.params * model_sizes.BYTES_EACH[weights],
        "cache": one.cache_bytes(tokens, batch, model_sizes.BYTES_EACH[cache]),
        "activations": one.prefill_activations(tokens),
    }
    capacity = gpus * sheet.memory_gb * 1e9
    most = fits(model, gpu, tokens, gpus, weights, cache)
    where = f"{gpu}" if gpus == 1 else f"{gpus} {gpu}"
    if parts["weights"] > capacity:
        title = f"{model} in {weights} does not fit {where}: its weights alone take {number(parts['weights'] / 1e9)} of {number(capacity / 1e9)} GB"
    elif sum(parts.values()) > capacity:
        title = f"{model} on {where}: {many(batch, 'sequence')} of {tokens:,} tokens {'does' if batch == 1 else 'do'} not fit; at most {most:,}"
    else:
        title = f"{model} on {where}: {many(batch, 'sequence')} of {tokens:,} tokens fit; at most {most:,}"
    beyond = f" It was trained for {one.context:,} tokens: memory is not quality." if tokens > one.context else ""
    note = (
        f"{one.params / 1e9:.2f}e9 weights in {weights}; a token of cache takes {size(one.cache_bytes(1, 1, model_sizes.BYTES_EACH[cache]))} ({cache}). "
        f"Activations: an estimate, one prompt's prefill.{beyond} Sizes: {one.source}."
    )
    return memory_bar(parts, capacity, title, note)


def explorer(model: str = "Llama-2-7B", gpu: str = "A100", tokens: int = 4096, batch: int = 16):
    """The same picture with controls; the picture alone where ipywidgets is missing."""
    first = state(model, gpu, tokens, batch)
    return _shell(model, gpu, tokens, batch) if controls_available() else without_controls(first)


def _shell(model: str, gpu: str, tokens: int, batch: int) -> Shell:
    import ipywidgets as widgets

    style = {"description_width": "initial"}

    def box(name: str, options, value, wide: str):
        return widgets.Dropdown(options=options, value=value, description=name, style=style, layout=widgets.Layout(width=wide))

    controls = {
        "model": box("Model", list(MODELS), model, "230px"),
        "weights": box("Weights", list(WEIGHTS), "fp16", "150px"),
        "cache": box("Cache", list(CACHES), "fp16", "140px"),
        "gpu": box("GPU", list(GPUS), gpu, "140px"),
        "gpus": box("How many", list(COUNTS), 1, "140px"),
        "tokens": box("Tokens a sequence", [(f"{n:,}", n) for n in CONTEXTS], tokens, "230px"),
        "batch": box("Sequences", [(f"{n:,}", n) for n in BATCHES], batch, "170px"),
    }
    for name, control in controls.items():
        control.add_class(f"k-memory-{name}")
    rows = [[controls[name] for name in ("model", "weights", "cache")], [controls[name] for name in ("gpu", "gpus", "tokens", "batch")]]
    return Shell(state, controls, rows)
