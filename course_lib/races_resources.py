"""What a compiled Triton kernel takes of a multiprocessor, and what that leaves room for. Knows nothing of times or of any kernel.

Registers, spills and shared memory come from the compiler; how many programs fit beside each other is computed from the
device's limits (CUDA C++ Programming Guide, Compute Capabilities; registers are given out by 256 to a warp).
"""

import functools
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import torch

_SLOTS = {(7, 5): 16, (8, 6): 16, (8, 9): 24, (12, 0): 24}  # programs a multiprocessor takes at most; 32 elsewhere
_RESERVED = 1024  # bytes of shared memory that the system keeps of each program, from capability 8.0 on


@dataclass(frozen=True)
class Device:
    """The limits of one multiprocessor, and how many there are."""

    multiprocessors: int
    registers: int = 65536
    shared: int = 233472
    threads: int = 2048
    capability: tuple[int, int] = (9, 0)

    @classmethod
    def here(cls) -> "Device":
        of = torch.cuda.get_device_properties()
        return cls(
            of.multi_processor_count,
            getattr(of, "regs_per_multiprocessor", 65536),
            getattr(of, "shared_memory_per_multiprocessor", of.shared_memory_per_block),
            of.max_threads_per_multi_processor,
            (of.major, of.minor),
        )


@dataclass(frozen=True)
class Resources:
    """One compiled kernel at one launch. Registers are counted a thread; spills in registers too."""

    kernel: str
    registers: int
    spills: int
    shared: int  # bytes a program
    warps: int
    programs: int  # the grid
    device: Device

    @property
    def rooms(self) -> dict[str, int]:
        """How many programs fit on a multiprocessor by each of its limits."""
        device, each = self.device, -(-max(1, self.registers) * 32 // 256) * 256  # registers of a warp
        reserved = _RESERVED if device.capability >= (8, 0) else 0
        return {
            "registers": 4 * (device.registers // 4 // each) // self.warps,
            "shared memory": device.shared // max(1, self.shared + reserved),
            "threads": device.threads // (32 * self.warps),
            "slots": _SLOTS.get(device.capability, 32),
        }

    @property
    def fit(self) -> int:
        """Programs on a multiprocessor at once."""
        return max(1, min(self.rooms.values()))

    @property
    def held_by(self) -> str:
        """What keeps one more program from fitting."""
        rooms = self.rooms
        return " and ".join(name for name, room in rooms.items() if room == min(rooms.values()))

    @property
    def sentence(self) -> str:
        room = f"{self.fit} {'program' if self.fit == 1 else 'programs'} of {self.warps} warps a multiprocessor, held by {self.held_by}"
        return "; ".join([room, *self.remarks])

    @property
    def remarks(self) -> list[str]:
        """What stands out: spills, and a grid that does not fill the GPU once."""
        places, out = self.fit * self.device.multiprocessors, []
        if self.spills:
            out.append(f"spills {self.spills} registers a thread to memory")
        if self.programs < places:
            out.append(f"the grid's {self.programs:,} programs leave some of {places:,} places empty")
        return out


def resources(function: Callable, inputs: tuple, device: Device | None = None) -> Resources | None:
    """What the last kernel takes that function(*inputs) launches; None where kernels are interpreted or none was launched."""
    launched = []
    with _watched(sys.modules[_plain(function).__module__], launched):
        function(*inputs)
    launched = [(kernel, grid) for kernel, grid in launched if hasattr(kernel, "n_regs")]
    if not launched:
        return None
    kernel, grid = launched[-1]
    programs = 1
    for n in grid:
        programs *= n
    of = kernel.metadata
    return Resources(
        getattr(of, "name", ""), kernel.n_regs, kernel.n_spills, of.shared, of.num_warps, programs, Device.here() if device is None else device
    )


def _plain(function: Callable) -> Callable:
    while isinstance(function, functools.partial):
        function = function.func
    return function


@contextmanager
def _watched(module, launched: list):
    """Every Triton kernel of a module notes (compiled kernel, grid) at each launch: `kernel[grid](...)` ends in `kernel.run`."""
    kernels = [one for one in vars(module).values() if hasattr(type(one), "__getitem__") and hasattr(one, "run") and hasattr(one, "fn")]

    def noted(run):
        def wrapper(*args, grid, **kwargs):
            compiled = run(*args, grid=grid, **kwargs)
            launched.append((compiled, grid if isinstance(grid, tuple) else ()))
            return compiled

        return wrapper

    for kernel in kernels:
        kernel.run = noted(kernel.run)
    try:
        yield
    finally:
        for kernel in kernels:
            del kernel.run  # the class's own shows again
