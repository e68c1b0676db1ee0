"""A server's cache memory under load, simulated: requests of random length arrive, hold slots, grow by a token a step, and leave.

Two ways to hold memory: one contiguous piece a request, reserved when it starts; or blocks, taken when they are needed. Counts slots (room for
K and V of one token) and nothing else: no model, no time. There is always somebody waiting, as on a busy server.
"""

import math
from bisect import insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

POLICIES = {  # slots that a contiguous server reserves for a request that will end with `final` tokens
    "longest context": lambda final, longest: longest,
    "power of two": lambda final, longest: min(longest, 1 << (final - 1).bit_length()),
    "exact length, foreseen": lambda final, longest: final,
}


@dataclass(frozen=True)
class Request:
    prompt: int  # tokens it brings
    output: int  # tokens it will write; no server knows this

    @property
    def final(self) -> int:
        return self.prompt + self.output


@dataclass(eq=False)
class Piece:
    """What one running request holds: slots start .. start + size - 1 (contiguous), or `size` slots in blocks."""

    request: Request
    start: int
    size: int
    now: int  # tokens stored


@dataclass
class Run:
    """What a simulation saw. Each row of `shares` is a step: (used, reserved, never, free) of all slots; free: nobody holds it and the next does not fit."""

    policy: str
    slots: int
    shares: np.ndarray
    running: np.ndarray  # requests at each step
    finished: int
    preempted: int
    last: list[Piece] = field(default_factory=list, repr=False)  # what was held at the last step

    @property
    def mean(self) -> dict[str, float]:
        return dict(zip(("used", "reserved", "never", "free"), self.shares.mean(axis=0).tolist(), strict=True))


def lognormal_requests(count: int, prompt_mean: float, output_mean: float, sigma: float = 1.0, longest: int = 2048, seed: int = 0) -> list[Request]:
    """Requests whose lengths are log-normal with these means and this sigma (of the logarithm), each cut to 1 .. longest / 2 tokens."""
    if count < 1 or min(prompt_mean, output_mean) < 1 or sigma < 0 or longest < 2:
        raise ValueError(f"lognormal_requests: count {count}, means {prompt_mean} and {output_mean}, sigma {sigma}, longest {longest}: too small")
    draw = np.random.default_rng(seed)
    columns = []
    for mean in (prompt_mean, output_mean):
        lengths = draw.lognormal(math.log(mean) - sigma**2 / 2, sigma, count)
        columns.append(np.clip(np.rint(lengths), 1, longest // 2).astype(int).tolist())
    return [Request(p, o) for p, o in zip(*columns, strict=True)]


def simulate(
    policy: str, requests: Sequence[Request], slots: int, longest: int = 2048, block: int = 16, steps: int = 1500, warm_up: int = 500
) -> Run:
    """Steps of a server with `slots` slots. policy: one of POLICIES, or "blocks" (of `block` slots). The first `warm_up` steps are not counted."""
    if policy != "blocks" and policy not in POLICIES:
        raise ValueError(f"simulate: the policy is {policy!r}; choose one of {', '.join([*POLICIES, 'blocks'])}")
    if not requests or slots < longest or any(r.final > longest for r in requests):
        raise ValueError(f"simulate: {len(requests)} requests, {slots} slots; the memory must hold at least the longest context, {longest}")
    waiting = deque(requests)
    memory = _Blocks(slots, block) if policy == "blocks" else _Pieces(slots, lambda request: POLICIES[policy](request.final, longest))
    rows, running, finished, preempted = [], [], 0, 0
    for step in range(warm_up + steps):
        while waiting and memory.start(waiting[0]):
            waiting.popleft()
        if not waiting:
            raise ValueError(f"simulate: after {step} steps nobody is waiting; give it more than {len(requests)} requests")
        if step >= warm_up:
            rows.append(memory.shares())
            running.append(len(memory.held))
        done = [piece for piece in memory.held if piece.now == piece.request.final]
        finished += len(done) * (step >= warm_up)
        for piece in done:
            memory.end(piece)
        for request in memory.grow():  # those that had to give their blocks back; they are next
            preempted += step >= warm_up
            waiting.appendleft(request)
    return Run(policy, slots, np.array(rows), np.array(running), finished, preempted, memory.held)


class _Pieces:
    """Contiguous pieces, each put into the smallest hole that it fits."""

    def __init__(self, slots: int, reserve: Callable[[Request], int]):
        self.slots, self.reserve, self.held = slots, reserve, []
        self.holes = [(0, slots)]  # (start, size), in order

    def start(self, request: Request) -> bool:
        size = self.reserve(request)
        fitting = [hole for hole in self.holes if hole[1] >= size]
        if not fitting:
            return False
        start, room = min(fitting, key=lambda hole: hole[1])
        self.holes.remove((start, room))
        if room > size:
            insort(self.holes, (start + size, room - size))
        self.held.append(Piece(request, start, size, request.prompt))
        return True

    def end(self, piece: Piece) -> None:
        self.held.remove(piece)
        insort(self.holes, (piece.start, piece.size))
        merged: list[tuple[int, int]] = []
        for start, size in self.holes:
            if merged and sum(merged[-1]) == start:
                start, size = merged[-1][0], merged.pop()[1] + size
            merged.append((start, size))
        self.holes = merged

    def grow(self) -> list[Request]:
        for piece in self.held:
            piece.now += 1
        return []

    def shares(self) -> tuple[float, float, float, float]:
        used = sum(piece.now for piece in self.held)
        reserved = sum(piece.request.final - piece.now for piece in self.held)
        never = sum(piece.size - piece.request.final for piece in self.held)
        return used / self.slots, reserved / self.slots, never / self.slots, (self.slots - used - reserved - never) / self.slots


class _Blocks:
    """Blocks anywhere. Who needs one when none is free: the request that started last gives all of its own back, and is computed again later.

    A hundredth of the blocks is kept for requests that run: nobody new starts on them, unless nobody runs.
    """

    def __init__(self, slots: int, block: int):
        self.block, self.total, self.held = block, slots // block, []
        self.free = self.total
        self.slots = self.total * block
        self.kept = self.total // 100

    def start(self, request: Request) -> bool:
        need = -(-(request.prompt + 1) // self.block)
        if need + (self.kept if self.held else 0) > self.free:
            return False
        self.free -= need
        self.held.append(Piece(request, -1, need * self.block, request.prompt))
        return True

    def end(self, piece: Piece) -> None:
        self.held.remove(piece)
        self.free += piece.size // self.block

    def grow(self) -> list[Request]:
        given_up = []
        for piece in list(self.held):
            if piece not in self.held:
                continue
            if piece.now == piece.size:
                while not self.free and piece in self.held:
                    last = self.held[-1]
                    given_up.append(Request(last.now, last.request.final - last.now))  # its tokens so far are a prompt now
                    self.end(last)
                if piece not in self.held:
                    continue
                self.free -= 1
                piece.size += self.block
            piece.now += 1
        return given_up

    def shares(self) -> tuple[float, float, float, float]:
        used = sum(piece.now for piece in self.held)
        reserved = sum(min(piece.size, piece.request.final) - piece.now for piece in self.held)
        never = sum(max(0, piece.size - piece.request.final) for piece in self.held)
        return used / self.slots, reserved / self.slots, never / self.slots, self.free * self.block / self.slots
