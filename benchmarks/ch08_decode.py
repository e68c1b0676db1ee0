"""Chapter 08: prefill and decoding steps of a Llama-3-8B shape (random weights, bf16) in the course's model, beside the roofline. Needs about 110 GB.

python benchmarks/ch08_decode.py [--layers 32]
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from course_lib import bench, model_sizes, recorded, roofline
from course_lib.llm import KVCache, Llama, ModelConfig
from solutions.ch08_kv_cache import decode_step_time

TOKENS = 2048


def random_llama(layers: int) -> Llama:
    """Llama-3-8B's shape with weights drawn on the GPU; fewer layers for a smaller card."""
    config = ModelConfig(
        vocab_size=128256, hidden_size=4096, num_layers=layers, num_heads=32, num_kv_heads=8, head_dim=128, intermediate_size=14336,
        max_positions=8192, rope_theta=500_000.0, tie_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        model = Llama(config).to(torch.bfloat16)
    model = model.to_empty(device="cuda")
    for weight in model.parameters():
        weight.data.normal_(std=0.02) if weight.dim() == 2 else weight.data.fill_(1)
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def measured(model: Llama, batch: int, prefill: bool = False) -> float:
    """Seconds of one decoding step behind TOKENS tokens a sequence; or of the prefill of as many tokens."""
    cache = KVCache(model.config, batch, TOKENS + 1, "cuda", torch.bfloat16)
    tokens = torch.randint(0, model.config.vocab_size, (batch, TOKENS if prefill else 1), device="cuda")
    for tensor in (*cache.k, *cache.v):
        tensor.normal_()

    def call():
        cache.rewind(0 if prefill else TOKENS)
        model(tokens, cache=cache, last=True)

    return bench.time_call(call, 15, 3, "cuda").median


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=32)
    layers = parser.parse_args().layers
    model, size = random_llama(layers), model_sizes.size("Llama-3-8B")
    params = layers * size.layer_params + size.vocab * size.hidden
    machine = roofline.machine("H200") if "H200" in torch.cuda.get_device_name() else roofline.machine("this")
    rows = []
    for batch in (1, 16, 64, 256):
        took = measured(model, batch)
        least = decode_step_time(batch, TOKENS, params, layers, 32, 8, 128, machine.bandwidth, machine.rate("bf16"))
        rows.append(
            {
                "sequences": batch,
                "tokens each": TOKENS,
                "step (ms)": 1e3 * took,
                "roofline (ms)": 1e3 * least,
                "of the roofline (%)": 100 * least / took,
                "tokens/s": batch / took,
            }
        )
        print(rows[-1], flush=True)
        torch.cuda.empty_cache()
    prefill = 1e3 * measured(model, 1, prefill=True)
    title = f"Llama-3-8B's shape, {layers} layers, bf16, plain torch: one decoding step (a prefill of {TOKENS:,} tokens: {prefill:.1f} ms)"
    print(recorded.write("ch08_decode", title, rows))


if __name__ == "__main__":
    main()
