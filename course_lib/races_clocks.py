"""The two clocks of a race. A GPU is timed by its own events, a CPU by its performance counter. Knows nothing of what runs."""

import contextlib
import gc
import time
from collections.abc import Callable

import torch

MOST_COPIES = 64


class CpuClock:
    """Wall time. Copies of the inputs: as many as pass a cache of 32 MiB twice."""

    device = "cpu"
    cache = 32 << 20

    def generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(seed)

    def sets(self, size: int) -> int:
        """How many copies of inputs and outputs of `size` bytes it takes that no call finds its own in a cache."""
        return max(1, min(MOST_COPIES, -(-2 * self.cache // size)))

    def wait(self) -> None:
        pass

    def recover(self) -> None:
        gc.collect()

    def seconds(self, turn: Callable[[], None], turns: int) -> float:
        start = time.perf_counter()
        for _ in range(turns):
            turn()
        return time.perf_counter() - start

    def launch_bound(self, lane) -> bool:
        return False

    def graph(self, calls: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("a CPU has no graphs")


class GpuClock(CpuClock):
    """CUDA events. Before each timing one more turn is queued, so that the first timed launch finds the GPU at work."""

    device = "cuda"

    def __init__(self):
        self.cache = 2 * torch.cuda.get_device_properties().L2_cache_size
        self.begin, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def wait(self) -> None:
        torch.cuda.synchronize()

    def recover(self) -> None:
        gc.collect()
        with contextlib.suppress(RuntimeError):  # after an illegal address every call says so again; the next contestant will, too
            torch.cuda.empty_cache()

    def seconds(self, turn: Callable[[], None], turns: int) -> float:
        torch.cuda.synchronize()
        turn()
        self.begin.record()
        for _ in range(turns):
            turn()
        self.end.record()
        self.end.synchronize()
        return self.begin.elapsed_time(self.end) / 1e3

    def launch_bound(self, lane) -> bool:
        """Whether the host needs over half of a turn's time to launch it: then the launch is timed, not the kernel."""
        torch.cuda.synchronize()
        start = time.perf_counter()
        lane.turn()
        launched = time.perf_counter()
        torch.cuda.synchronize()
        return launched - start > (time.perf_counter() - start) / 2

    def graph(self, calls: Callable[[], None]) -> Callable[[], None]:
        """One launch for all of `calls`; its outputs stay where they were at the recording."""
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            calls()
        graph.replay()
        torch.cuda.synchronize()
        return graph.replay


def clock(device: str) -> CpuClock:
    return GpuClock() if device == "cuda" else CpuClock()
