"""Tiles and splits of the decode kernels against each other on this GPU: how CONFIGS of kernels/decode_split.py and paged_decode.py were chosen.

Run: python benchmarks/decode_sweep.py [decode paged_decode] [--few]       prints a table a problem; writes nothing

Compiling would take most of the time, so processes compile all configurations first, side by side.
"""

import argparse
import itertools
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

TRIED = {  # BLOCK_N, num_warps, num_stages; a paged pipeline holds half as many tiles
    "decode": (
        (32, 2, 5), (32, 4, 4), (32, 4, 8), (64, 2, 3), (64, 4, 2), (64, 4, 3), (64, 4, 4), (64, 4, 5), (64, 4, 6), (64, 8, 4),
        (128, 4, 2), (128, 4, 3), (128, 8, 2), (128, 8, 3), (128, 8, 4),
    ),
    "paged_decode": (
        (32, 2, 7), (32, 4, 7), (32, 4, 9), (64, 2, 5), (64, 4, 3), (64, 4, 5), (64, 4, 7), (64, 4, 9), (64, 8, 5), (64, 8, 7),
        (128, 4, 2), (128, 4, 3), (128, 4, 4), (128, 8, 3), (128, 8, 5), (128, 8, 7),
    ),
}  # fmt: skip
SPLITS = {(64, 8192): (None, 1, 2, 3, 4), (1, 131_072): (None, 16, 33, 49, 66, 99), (16, 2048): (None, 1, 2, 3, 4)}


def tried(host, *inputs, config: dict):
    """The host with a configuration that may hold a number of splits too."""
    config = dict(config)
    return host(*inputs, num_splits=config.pop("splits", None), config=config)


def configs_of(name: str) -> list[dict]:
    return [dict(zip(("BLOCK_N", "num_warps", "num_stages"), one, strict=True)) for one in TRIED[name]]


def _host(name: str):
    if name == "decode":
        from kernels.decode_split import decode_split as host
    else:
        from kernels.paged_decode import paged_decode as host
    return host


def compile_one(name: str, config: dict) -> str:
    """In a process of its own: one small call, which leaves the compiled kernel in Triton's cache."""
    import torch

    from course_lib import races_decode, races_problems

    s = races_problems.Setting("cuda", torch.bfloat16, sizes=(2048,))
    race = races_decode.KERNELS[name](s)[0]
    inputs = race.draw(torch.Generator("cuda").manual_seed(0))
    for splits in (1, 2):  # the last row of `out` is float32 or not
        try:
            tried(_host(name), *inputs, config={**config, "splits": splits})
        except Exception as error:
            return f"{config}: {type(error).__name__}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["decode", "paged_decode"])
    parser.add_argument("--few", action="store_true", help="the first number of splits alone")
    arguments = parser.parse_args()
    import torch

    from course_lib import races_decode, races_problems, tune

    with ProcessPoolExecutor(max(1, (os.cpu_count() or 2) - 2), mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(compile_one, name, config) for name in arguments.names for config in configs_of(name)]
        print("\n".join(filter(None, (job.result() for job in jobs))), flush=True)
    for name in arguments.names:
        for race in races_decode.KERNELS[name](races_problems.Setting("cuda", torch.bfloat16)):
            some = SPLITS[race.size["requests"], race.size["context"]]
            configs = [
                {**config, **({"splits": n} if n else {})} for n, config in itertools.product(some[:1] if arguments.few else some, configs_of(name))
            ]
            mine = next(one for one in race.contestants if one.ours)
            host = partial(tried, _host(name))
            fast = _coarse(race, mine, host, configs)
            tune.of_race(race, _with(mine, host), fast)
    return 0


def _with(contestant, host):
    from dataclasses import replace

    return replace(contestant, prepare=lambda: host)


def _coarse(race, mine, host, configs: list[dict], most: int = 12) -> list[dict]:
    """The fastest `most` by a few replays of a CUDA graph each; a race of the rest would only take time."""
    import torch

    inputs = race.draw(torch.Generator("cuda").manual_seed(0))
    times = {}
    for i, config in enumerate(configs):
        try:
            host(*inputs, config=config)
            torch.cuda.synchronize()
            graph, begin, end = torch.cuda.CUDAGraph(), torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            with torch.cuda.graph(graph):
                host(*inputs, config=config)
            for replays in (3, 20):
                begin.record()
                for _ in range(replays):
                    graph.replay()
                end.record()
                end.synchronize()
            times[i] = begin.elapsed_time(end) / 20
        except Exception as error:
            print(f"  {config}: {type(error).__name__}: {str(error)[:100]}")
    ranked = sorted(times, key=times.get)
    print(f"{race.title}: " + "; ".join(f"{configs[i]} {times[i] * 1e3:.1f} us" for i in ranked[: most + 6]), flush=True)
    return [configs[i] for i in ranked[:most]]


if __name__ == "__main__":
    sys.exit(main())
