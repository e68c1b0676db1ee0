"""Fetches other people's kernels for `course bench` to race against, for a Hopper GPU without a network. For measurement: nothing is committed.

    python -m tools.peer_libraries flashinfer      .whl/: wheels to install there (17 MB)
    python -m tools.peer_libraries fa3             .dev/fa3/: FlashAttention-3's library, sm_90 alone, packed (13 MB)

There, unpack with `lzma`, set COURSE_FA3_LIBRARY to the library and COURSE_FA3_CUDART to libcudart.so.12; install the wheels with
`pip install --no-index --no-deps --target FOLDER .whl/*.whl` and set PYTHONPATH to FOLDER, FLASHINFER_CUDA_ARCH_LIST to 9.0a.
FlashInfer compiles its kernels at their first use, so CUDA's compiler and ninja must be there; einops, click, tabulate and nvidia-ml-py too.
"""

import lzma
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tools.sync import ROOT

FLASHINFER = ("flashinfer-python==0.6.12", "apache-tvm-ffi==0.1.11")
FA3 = ("xformers==0.0.34", "nvidia-cuda-runtime-cu12==12.8.90")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_24_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
MAGIC = struct.pack("<IHH", 0xBA55ED50, 1, 16)  # how a container of GPU code begins: its mark, version 1, a header of 16 bytes
KEPT = 90


def download(requirements: tuple[str, ...], folder: Path) -> None:
    """The wheels alone, for Python 3.12 on an x86-64 Linux, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
    subprocess.run([*command, *platforms, "-d", str(folder), *requirements], check=True)


def pruned(library: bytes) -> tuple[bytearray, int]:
    """(the library with the GPU code of other architectures than KEPT zeroed in place, so that it packs well; how many bytes that were).

    A container holds entries: kind, version, size of the entry's header, size of its code, ..., the architecture at byte 28.
    """
    data, at, zeroed = bytearray(library), 0, 0
    while (at := data.find(MAGIC, at)) >= 0:
        (size,) = struct.unpack_from("<Q", data, at + 8)
        entry, end = at + 16, at + 16 + size
        while entry < end:
            header, code = struct.unpack_from("<IQ", data, entry + 4)
            (architecture,) = struct.unpack_from("<I", data, entry + 28)
            if architecture != KEPT:
                data[entry + header : entry + header + code] = bytes(code)
                zeroed += code
            entry += header + code
        at = end
    return data, zeroed


def fetch_fa3(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        download(FA3, Path(temporary))
        for wheel in Path(temporary).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if name.endswith("libcudart.so.12"):
                        (folder / "libcudart.so.12").write_bytes(archive.read(name))
                    elif name.endswith("flash_attn_3/_C.so"):
                        data, zeroed = pruned(archive.read(name))
                        print(f"{len(data):,} bytes, {zeroed:,} of them code for other GPUs; packing takes minutes")
                        (folder / "_C.so.xz").write_bytes(lzma.compress(data, preset=6))


def main(argv: list[str]) -> int:
    if not argv or set(argv) - {"flashinfer", "fa3"}:
        print("python -m tools.peer_libraries flashinfer | fa3", file=sys.stderr)
        return 2
    if "flashinfer" in argv:
        download(FLASHINFER, ROOT / ".whl")
    if "fa3" in argv:
        fetch_fa3(ROOT / ".dev" / "fa3")
    for folder in (ROOT / ".whl", ROOT / ".dev" / "fa3"):
        for path in sorted(folder.glob("*")):
            print(f"{path.stat().st_size:12,}  {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
