"""Frames between the judge and an answer child: a JSON header and raw tensor bytes. Never pickled, never trusted.

Knows nothing of exercises. A frame is

    8 bytes  length of the header, length of the body (two little-endian uint32)
    header   JSON: {"value": a tree, "tensors": [[dtype, shape, offset, length], ...]}
    body     the tensors' bytes, one after another, C order

In a tree, None, bool, int, float and str stand for themselves; everything else is an object with one key:
{"tensor": 3}, {"list": [...]}, {"tuple": [...]}, {"dict": [[key, value], ...]}, {"state": [a, b, c]}, {"tiles": [x, width]}.
"""

import json
import math
import socket
import struct
import time
from typing import Any

import torch
from torch import Tensor

from course_lib.grading.spec import Tiles
from course_lib.states import SoftmaxState

MAX_HEADER = 8 << 20
MAX_BODY = 256 << 20
_MAX_DEPTH = 24
_LENGTHS = struct.Struct("<II")
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    )
}
# Kept: whatever runs in this process may replace torch's own.
_detach, _cpu, _contiguous, _reshape, _view = Tensor.detach, Tensor.cpu, Tensor.contiguous, Tensor.reshape, Tensor.view
_numpy, _count = Tensor.numpy, Tensor.numel


class WireError(Exception):
    """The peer sent something that is not a frame, or one that is too large."""


class Closed(WireError):
    """The peer is gone."""


class Late(WireError):
    """The deadline passed before a whole frame was there."""


def tensor_bytes(x: Tensor) -> bytes:
    """The raw bytes of a tensor in C order."""
    flat = _reshape(_contiguous(_cpu(_detach(x))), (-1,))
    return _numpy(_view(flat, torch.uint8)).tobytes() if _count(flat) else b""


def pack(value: Any) -> bytes:
    """One frame. TypeError names what cannot be sent."""
    tensors: list[list] = []
    parts: list[bytes] = []
    size = 0

    def walk(node: Any) -> Any:
        nonlocal size
        if node is None or isinstance(node, bool | str):
            return node
        if isinstance(node, int | float):
            return node
        if isinstance(node, Tensor):
            name = str(node.dtype).removeprefix("torch.")
            if name not in _DTYPES:
                raise TypeError(f"a tensor of dtype {name} cannot be sent")
            raw = tensor_bytes(node)
            tensors.append([name, list(node.shape), size, len(raw)])
            parts.append(raw)
            size += len(raw)
            return {"tensor": len(tensors) - 1}
        if isinstance(node, SoftmaxState):
            return {"state": [walk(part) for part in node]}
        if isinstance(node, Tiles):
            return {"tiles": [walk(node.x), node.width]}
        if isinstance(node, list | tuple):
            return {"list" if isinstance(node, list) else "tuple": [walk(part) for part in node]}
        if isinstance(node, dict):
            return {"dict": [[walk(key), walk(part)] for key, part in node.items()]}
        raise TypeError(f"a {type(node).__name__} cannot be sent")

    header = json.dumps({"value": walk(value), "tensors": tensors}).encode()
    if len(header) > MAX_HEADER or size > MAX_BODY:
        raise TypeError(f"{size >> 20} MB of tensors; at most {MAX_BODY >> 20} MB are taken")
    return b"".join([_LENGTHS.pack(len(header), size), header, *parts])


def unpack(header: bytes, body: bytes) -> Any:
    """The value of a frame. WireError where anything about it is not as `pack` makes it."""
    try:
        data = json.loads(header)
        tensors = [_tensor(body, *entry) for entry in data["tensors"]]
        return _value(data["value"], tensors, 0)
    except WireError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, RuntimeError, OverflowError, MemoryError) as error:
        raise WireError(f"not a frame: {type(error).__name__}") from error


def _tensor(body: bytes, name: str, shape: list, offset: int, length: int) -> Tensor:
    dtype = _DTYPES[name]
    if not all(type(n) is int and 0 <= n < 2**40 for n in [*shape, offset, length]) or len(shape) > 16:
        raise WireError("not a frame: a shape that is none")
    if math.prod(shape) * dtype.itemsize != length or offset + length > len(body):
        raise WireError("not a frame: a tensor whose bytes do not fit its shape")
    if not length:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(body[offset : offset + length]), dtype=dtype).reshape(shape)


def _value(node: Any, tensors: list[Tensor], depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise WireError("not a frame: nested too deeply")
    if not isinstance(node, dict):
        if isinstance(node, list):
            raise WireError("not a frame: a bare list")
        return node
    ((tag, content),) = node.items()
    if tag == "tensor":
        if type(content) is not int or content < 0:
            raise WireError("not a frame: a tensor without a number")
        return tensors[content]
    if tag == "dict":
        return {_value(key, tensors, depth + 1): _value(part, tensors, depth + 1) for key, part in content}
    if tag == "tiles":
        x, width = content
        if type(width) is not int or width < 1:
            raise WireError("not a frame: tiles without a width")
        return Tiles(_value(x, tensors, depth + 1), width)
    if tag not in ("list", "tuple", "state") or not isinstance(content, list):
        raise WireError(f"not a frame: the tag {str(tag)[:40]!r}")
    parts = [_value(part, tensors, depth + 1) for part in content]
    if tag == "state":
        return SoftmaxState(*parts)
    return parts if tag == "list" else tuple(parts)


def send(sock: socket.socket, value: Any, deadline: float | None = None) -> None:
    """Send one frame; `deadline` in time.monotonic() seconds."""
    frame = memoryview(pack(value))
    try:
        while frame:
            sock.settimeout(_left(deadline))
            frame = frame[sock.send(frame[: 1 << 20]) :]
    except TimeoutError as error:
        raise Late("the deadline passed while sending") from error
    except OSError as error:
        raise Closed("the other side is gone") from error


def receive(sock: socket.socket, deadline: float | None = None) -> Any:
    """The next frame's value. Late when the deadline passes, Closed when the peer is gone, WireError on nonsense."""
    header_size, body_size = _LENGTHS.unpack(_exactly(sock, _LENGTHS.size, deadline))
    if header_size > MAX_HEADER or body_size > MAX_BODY:
        raise WireError("not a frame: it says that it is too large")
    return unpack(_exactly(sock, header_size, deadline), _exactly(sock, body_size, deadline))


def _exactly(sock: socket.socket, size: int, deadline: float | None) -> bytes:
    out = bytearray()
    while len(out) < size:
        try:
            sock.settimeout(_left(deadline))
            part = sock.recv(min(size - len(out), 1 << 20))
        except TimeoutError as error:
            raise Late("the deadline passed while waiting") from error
        except OSError as error:
            raise Closed("the other side is gone") from error
        if not part:
            raise Closed("the other side is gone")
        out += part
    return bytes(out)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0.001)
