"""`course bench`: the course's kernels against their peers, on the machine at hand. What is raced lies in `course_lib.races_problems`."""

import argparse
import dataclasses
import datetime
import json
import sys
import time
import warnings
from pathlib import Path

from course_lib import hardware
from course_lib.commands.cli import Parser, UsageError

GROUPS = {
    "rows": ("vector_add", "softmax_rows", "softmax_long_rows", "rms_norm", "swiglu"),
    "matmul": ("matmul",),
    "flash_forward": ("flash_forward",),
    "flash_backward": ("flash_backward", "flash_backward_dkdv", "flash_backward_dq"),
    "flash_variants": ("flash_varlen", "flash_varlen_backward", "flash_window", "flash_window_backward", "flash_score_mod"),
}
TITLES = {
    "rows": "Kernels bound by memory, {dtype}: compulsory bytes (read + written once) a second",
    "matmul": "Matrix products, {dtype}",
    "flash_forward": "Attention forward, {dtype}, 16K tokens of width 2,048: 4 B H N^2 D operations, half of them where causal",
    "flash_backward": "Attention backward, {dtype}, 16K tokens of width 2,048: 10 B H N^2 D operations (dkdv alone 8, dq alone 6), half of them where causal",
    "flash_variants": "Packed sequences, windows, changed scores, {dtype}, 16K tokens of width 2,048: operations of the pairs that are kept",
}
CACHE = {
    "decode": "Decode over a full cache, {dtype}, GQA 32/8, D = 128: K and V once, bytes a second",
    "paged_decode": "Paged decode, {dtype}, GQA 32/8, D = 128, blocks of 16 in random order: K and V once, bytes a second",
    "paged_prefill": "Paged prefill, {dtype}, GQA 32/8, D = 128, blocks of 16: 4 D operations for each pair that attends",
    "rope": "RoPE, {dtype}: compulsory bytes a second",
    "write_kv": "K and V to their slots, {dtype}: bytes read and written a second",
}
GROUPS |= {name: (name,) for name in CACHE}
TITLES |= CACHE
_MORE = """
NAME is a group (rows, matmul, flash_forward, flash_backward, flash_variants) or one of its kernels; without NAME everything is raced.
A rate is a median with half the width of the middle half in brackets; "ceiling" is the best course kernel's share of what this
machine reaches (copy bandwidth or matmul rate, measured); "/ peer" is how many times as fast as the peer it is.
FlashAttention-3 is raced where COURSE_FA3_LIBRARY names its library and COURSE_FA3_CUDART a libcudart.so.12.
Without a GPU kernels are interpreted: they are checked and their bytes counted, and the peers alone are timed, on the CPU.

--output writes FOLDER/GROUP.json for each group, and ch04_rows.json where rows and matmul are both raced.
Exit code: 0 done, 1 a kernel of the course is wrong or failed, or a race could not be run, 2 the command cannot be understood.
"""


def main(argv: list[str]) -> int:
    parser = Parser(
        prog="course bench", description="Race the course's kernels against their peers, on this machine.", epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME", help="groups or kernels, as in --list")
    parser.add_argument("--list", action="store_true", help="list the groups and their kernels")
    parser.add_argument("--quick", action="store_true", help="one size each and fewer rounds")
    parser.add_argument("--json", metavar="PATH", help="write every result there; - is standard output, and then nothing else goes there")
    parser.add_argument("--output", metavar="FOLDER", help="write the committed form of each group into this folder")
    parser.add_argument("--sizes", metavar="N,N", help="other sizes: elements or widths of rows, sides of matrices, lengths of sequences")
    try:
        arguments = parser.parse_args(argv)
    except SystemExit:
        return 0
    groups, sizes = chosen(arguments.names), parse_sizes(arguments.sizes)
    check_targets(arguments, groups)
    if arguments.list:
        print("\n".join(f"{group:<14} {', '.join(kernels)}" for group, kernels in GROUPS.items()))
        return 0
    if sentence := hardware.blocked("triton", "course bench"):
        print(sentence)
        return 0
    out = sys.stderr if arguments.json == "-" else sys.stdout
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peers warn of slower ways they take; what they cannot do comes as an error
        return (_interpreted if hardware.tier() == "interpreter" else _compiled)(arguments, groups, sizes, out)


def chosen(names: list[str]) -> dict[str, tuple[str, ...]]:
    """The kernels meant, by group. UsageError with the list for a name that is not known."""
    known = [*GROUPS, *GROUPS["rows"]]
    for name in names:
        if name not in known:
            words = "; ".join(f"{group} ({', '.join(kernels)})" if len(kernels) > 1 else group for group, kernels in GROUPS.items())
            raise UsageError(f"bench: there is no kernel or group {name!r} to race. Choose from {words}.")
    if not names:
        return dict(GROUPS)
    asked = {group: tuple(kernel for kernel in kernels if group in names or kernel in names) for group, kernels in GROUPS.items()}
    return {group: kernels for group, kernels in asked.items() if kernels}


def parse_sizes(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    try:
        sizes = tuple(int(word) for word in text.split(","))
    except ValueError:
        sizes = (0,)
    if min(sizes) < 1:
        raise UsageError(f"bench: --sizes takes whole numbers from 1 on with commas between them, as in --sizes 4096,16384; it got {text!r}.")
    return sizes


def check_targets(arguments: argparse.Namespace, groups: dict) -> None:
    """UsageError before anything is raced, not after."""
    if arguments.output:
        partial = [group for group, kernels in groups.items() if kernels != GROUPS[group]]
        if partial:
            raise UsageError(f"bench: --output writes whole groups. Ask for {partial[0]} instead of some of its kernels, or use --json.")
        if Path(arguments.output).exists() and not Path(arguments.output).is_dir():
            raise UsageError(f"bench: --output {arguments.output} is a file; give a folder.")
    if arguments.json and arguments.json != "-":
        path = Path(arguments.json)
        if path.is_dir() or not path.parent.is_dir():
            raise UsageError(f"bench: --json {arguments.json} cannot be written: give the name of a file in a folder that exists.")


# ---------------------------------------------------------------- with a GPU


def _compiled(arguments: argparse.Namespace, groups: dict, sizes: tuple[int, ...], out) -> int:
    import torch

    from course_lib import ceilings, races_clocks, races_report
    from course_lib.races_problems import KERNELS, Setting

    has_bf16 = torch.cuda.get_device_capability() >= (8, 0)  # torch also claims bf16 where it is emulated
    setting = Setting("cuda", torch.bfloat16 if has_bf16 else torch.float16, arguments.quick, sizes)
    began = time.monotonic()
    scale = races_report.Scale(ceilings.measured("cuda"))
    head = [_machine(), f"ceilings: {_ceilings(scale, setting.rate)}"] + ([] if has_bf16 else [races_report.NO_CLAIM])
    print("\n".join(head), file=out)
    clock, raced, details, said, broken = races_clocks.GpuClock(), {}, [], [], []
    for group, kernels in groups.items():
        results, failures = race_group([race for kernel in kernels for race in KERNELS[kernel](setting)], clock, arguments.quick, began)
        raced[group], broken = results, broken + failures
        details += [races_report.detail(one, scale) for race in results for one in race]
        said += [*failures, *races_report.notes(results)]
        if results:
            _show(results, scale, TITLES[group].format(dtype=setting.rate), out)
        print("\n".join(f"  {note}" for note in [*failures, *races_report.notes(results)]), file=out)
        if arguments.output:
            _record(raced, group, scale, setting, arguments, out)
    print(f"{time.monotonic() - began:.0f} s in all", file=out)
    if arguments.json:
        _json(arguments.json, {"ceilings": dataclasses.asdict(scale.ceilings), "notes": said, "results": details})
    return 1 if broken or any(row["course"] and row["problem"] for row in details) else 0


def race_group(races: list, clock, quick: bool, began: float) -> tuple[list, list[str]]:
    """(results of each race, sentences on races that could not even begin). One line of progress each goes to stderr."""
    import torch

    from course_lib import peers
    from course_lib import races as racing

    done, failures = [], []
    for race in races:
        print(f"{time.monotonic() - began:4.0f} s  {race.title}", file=sys.stderr, flush=True)
        try:
            if clock.device == "cuda":
                peers.fresh_compiler()
            with torch.no_grad():
                done.append(racing.run(race, clock, *((5, 1.0) if quick else ())))
        except Exception as error:
            failures.append(f"{race.title}: this race could not be run ({racing.first_line(error)})")
        clock.recover()
    return done, failures


def _show(results: list, scale, title: str, out) -> None:
    from rich.console import Console

    from course_lib import races_report

    wide = Console(file=out, width=1000)
    tables = [races_report.rates_table(results, scale, title), races_report.ratios_table(results), races_report.kernels_table(results, scale)]
    for table in filter(None, tables):  # a line that is longer than the terminal runs on; no number is cut
        Console(file=out, width=wide.measure(table).maximum, highlight=False).print(table, crop=False)


def _ceilings(scale, rate: str) -> str:
    return f"copy {scale.ceilings.bandwidth / 1e12:.3g} TB/s, {rate} matmul {scale.ceilings.rates[rate] / 1e12:.4g} TFLOP/s (measured {scale.ceilings.date})"


def _machine() -> str:
    from course_lib import recorded

    return f"{recorded.machine()}, " + ", ".join(f"{package} {version}" for package, version in recorded.versions().items())


def _record(raced: dict, group: str, scale, setting, arguments: argparse.Namespace, out) -> None:
    """The group that has ended, so that a run which is stopped later leaves its records; ch04_rows when both its groups are there."""
    from course_lib import races_report, recorded

    def write(name: str, title: str, rows: list[dict], groups: str, details: list[dict]) -> None:
        flags = (" --quick" if arguments.quick else "") + (f" --sizes {arguments.sizes}" if arguments.sizes else "")
        written = recorded.write(name, title, rows, Path(arguments.output), f"course bench {groups}{flags}", details)
        print(f"  wrote {written}", file=out)

    if raced[group]:
        details = [races_report.detail(one, scale) for race in raced[group] for one in race]
        title = f"{TITLES[group].format(dtype=setting.rate)}. Ceilings: {_ceilings(scale, setting.rate)}"
        write(group, title, races_report.wide_rows(raced[group], scale), group, details)
    if group in ("rows", "matmul") and raced.get("rows") and raced.get("matmul"):
        title = f"The course's kernels of chapter 04, {setting.rate}, as shares of this GPU's ceilings: {_ceilings(scale, setting.rate)}"
        write("ch04_rows", title, races_report.kernel_rows([*raced["rows"], *raced["matmul"]], scale), "rows matmul", [])


def _json(target: str, result: dict) -> None:
    from course_lib import recorded

    head = {"machine": recorded.machine(), "date": datetime.date.today().isoformat(), "versions": recorded.versions(), "tier": hardware.tier()}
    text = json.dumps(head | result, indent=1) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"bench: --json {target} cannot be written ({error.strerror or error}).") from None


# ---------------------------------------------------------------- without


def _interpreted(arguments: argparse.Namespace, groups: dict, sizes: tuple[int, ...], out) -> int:
    import torch

    from course_lib import ceilings, races_clocks, races_interpreted, races_report
    from course_lib.races_problems import KERNELS, Setting

    began = time.monotonic()
    print(f"{hardware.describe()}\nMeasured here: whether each kernel is right, the bytes it requests, and the peers' times on this CPU.", file=out)
    print("Not measured here: the kernels' speed. An interpreted kernel's time says nothing of a GPU.", file=out)
    tiny, g = Setting("cpu", torch.float32, arguments.quick, tiny=True), torch.Generator().manual_seed(0)
    names = [kernel for kernels in groups.values() for kernel in kernels]
    looks = [look for name in names for race in KERNELS[name](tiny) for look in races_interpreted.look(race, g)]
    _print(_looks_table(looks), out)
    setting, scale = Setting("cpu", torch.float32, arguments.quick, sizes), races_report.Scale(ceilings.measured("cpu"))
    details, said = [], []
    for group, kernels in groups.items():
        races = [_peers_alone(race) for kernel in kernels for race in KERNELS[kernel](setting)]
        results, failures = race_group(races, races_clocks.CpuClock(), True, began)
        details += [races_report.detail(one, scale) for race in results for one in race]
        said += [*failures, *races_report.notes(results)]
        if results:
            _print(_cpu_table(results, scale, f"The peers of {group} on this CPU, float32"), out)
    print(
        "\n".join(
            [*(f"  {note}" for note in said), *(["Nothing is written to --output: a record holds kernels' times."] if arguments.output else [])]
        ),
        file=out,
    )
    if arguments.json:
        about = {"ceilings": dataclasses.asdict(scale.ceilings), "notes": said}
        _json(arguments.json, about | {"interpreted": [look.row() for look in looks], "results": details})
    return 1 if any(look.problem.startswith("wrong") for look in looks) else 0


def _peers_alone(race):
    return dataclasses.replace(race, contestants=tuple(one for one in race.contestants if not one.ours))


def _looks_table(looks: list):
    from course_lib.tables import Table

    rows = []
    for look in looks:
        row = look.row()
        amounts = [f"{row['requested (bytes)']:,}", f"{row['compulsory (bytes)']:,}", f"{row['requested / compulsory']:.3g}"]
        rows.append((row["kernel"], look.race.size_words, look.problem or "right", *(amounts if look.requested is not None else ["-"] * 3)))
    columns = ("kernel", "size", "interpreted, float32", "requested bytes", "compulsory", "requested / compulsory")
    return Table(columns, tuple(rows), "The kernels, interpreted")


def _cpu_table(results: list, scale, title: str):
    from course_lib.tables import Table
    from course_lib.words import number

    rows = []
    for one in (one for race in results for one in race):
        size, unit = scale.unit(one.race)
        times = (
            (one.problem, "", "")
            if not one.timing
            else (" ".join(one.timing.words(3)[::3]), f"{number(one.rate / size, 3)} {unit}", _share(one, scale))
        )
        rows.append((one.race.title, one.who, *times))
    return Table(("problem", "who", "median", "rate", "of this CPU's ceiling"), tuple(rows), title)


def _share(one, scale) -> str:
    return f"{scale.percent(one):.0f} %"


def _print(table, out) -> None:
    print(repr(table), file=out)
