"""Files written whole or not at all, also when the disk is full or the process is killed. Knows nothing of what is in them."""

import contextlib
import os
import threading
import time
from pathlib import Path

_LEFT = 600.0  # seconds: a half-written file older than this belongs to nobody; writing one takes milliseconds


def replace(path: Path, data: bytes | str, alone: bool = False) -> None:
    """Write a file in one move; where that fails the old one stays as it is, and the OSError passes.

    The new text grows beside the file as `.NAME.PROCESS-THREAD.tmp`; what a killed process left there is removed by a later call, ten
    minutes on. alone=True, for a caller whose lock keeps every other writer away: it grows as `.NAME.tmp`, so the next call takes its place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    temporary = path.with_name(f".{path.name}.tmp" if alone else f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        write_bytes(descriptor, data.encode("utf-8", errors="backslashreplace") if isinstance(data, str) else data)
        with contextlib.suppress(FileNotFoundError):
            os.chmod(temporary, path.stat().st_mode & 0o777)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_bytes(descriptor: int, data: bytes) -> None:
    """All of it, on the disk. A function of its own so that tests can fill the disk."""
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sweep(path: Path) -> None:
    """Remove half-written texts of this file that were left long ago."""
    prefix = f".{path.name}."
    with contextlib.suppress(OSError):
        for half in os.scandir(path.parent):
            if half.name.startswith(prefix) and half.name.endswith(".tmp") and time.time() - half.stat().st_mtime > _LEFT:
                os.unlink(half.path)
