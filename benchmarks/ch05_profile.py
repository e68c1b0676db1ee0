"""What a profiler sees of chapter 05's ways to attention: which kernels run and for how long, beside what the compiler made of them.

Run: python benchmarks/ch05_profile.py [FOLDER]       a minute on a CUDA GPU; writes the record that the notebook shows
     python benchmarks/ch05_profile.py --tool torch.profiler      with torch's profiler instead of Triton's
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

H, N, D = 16, 4096, 128
TENSORS = {"q": (1, H, N, D), "k": (1, H, N, D), "v": (1, H, N, D)}


def naive(q, k, v):
    """Chapter 02's three operators, S and P written down."""
    import torch

    return torch.softmax(q @ k.mT * q.shape[-1] ** -0.5, dim=-1) @ v


def ways() -> dict:
    """The functions by name. naive is torch's; `flash_forward` is the exercise's solution, with the stub's tiles."""
    from course_lib.earlier import flash_forward as of_the_exercise
    from kernels import flash_forward, flash_forward_descriptors, flash_forward_two_tiles

    return {
        "naive": naive,
        "the exercise": of_the_exercise,
        "plain": flash_forward.flash_attention_forward,
        "two tiles": flash_forward_two_tiles.flash_attention_forward,
        "descriptors": flash_forward_descriptors.flash_attention_forward,
    }


def inside_of(name: str, function, target: int) -> dict:
    """Registers, bytes spilled and shared memory of a way's Triton kernel, compiled for this GPU."""
    import torch

    from course_lib import inside

    if name == "naive":
        return {"registers": "-", "spilled (bytes)": "-", "shared (KiB)": "-"}
    like = [torch.empty(shape, dtype=torch.float16, device="meta") for shape in TENSORS.values()]
    seen = inside.look(function, *like, target=target)
    return {"registers": seen.registers, "spilled (bytes)": seen.spilled, "shared (KiB)": round(seen.shared / 1024, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="where the record goes; the committed results by default")
    parser.add_argument("--tool", choices=["Proton", "torch.profiler"], help="the first that works by default")
    arguments = parser.parse_args()
    os.environ["COURSE_EARLIER"] = "solution"  # whoever runs this may have answers
    from course_lib import hardware

    if sentence := hardware.blocked("gpu", "Profiling"):
        sys.exit(sentence)
    import torch

    from course_lib import inside, profiling, recorded

    q, k, v = (torch.randn(shape, device="cuda", dtype=torch.float16) for shape in TENSORS.values())
    major, minor = torch.cuda.get_device_capability()
    target = max(known for known in inside.TARGETS if known <= 10 * major + minor)
    functions = ways() if major == 9 else {name: way for name, way in ways().items() if name != "descriptors"}
    profile = profiling.profile({name: lambda way=way: way(q, k, v) for name, way in functions.items()}, tool=arguments.tool)
    compiled = {name: inside_of(name, way, target) for name, way in functions.items()}
    rows = [{**row, **compiled[row["way"]]} for row in profile.rows()]
    title = f"Kernels of one call, {H} heads, N = {N:,}, D = {D}, fp16, full ({profile.tool}, {profile.calls} calls)"
    path = recorded.write("ch05_profile", title, rows, Path(arguments.folder) if arguments.folder else recorded.RESULTS)
    print(profile, path, sep="\n")


if __name__ == "__main__":
    main()
