"""Compiles an answer's kernels ahead of time for a GPU that need not be there, from the launches that the interpreter saw.

Runs in an answer child of the "compiled" flavour: no TRITON_INTERPRET, no device. Knows nothing of exercises or verdicts; a
kernel that the compiler refuses comes back as a failure with the compiler's own sentence and the answer's own line.
"""

import ast
import linecache
import os
import re
from subprocess import SubprocessError
from types import ModuleType

TARGETS = (80, 90)  # compute capabilities; the first where nothing is said
_OPTIONS = ("num_warps", "num_stages", "num_ctas", "maxnreg")
_SAID = (
    (
        re.compile(r"'(List|Tuple|Name)' object has no attribute 'func'"),
        "a `for` in a kernel runs over `range`, `tl.range` or `tl.static_range` only",
    ),
)


def compiled(module: ModuleType, launch: dict) -> dict:
    """{} where the launch's kernel compiles (or is none of the answer's own), else {"failure": ...}."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    os.environ["TRITON_CACHE_DIR"] = os.path.join(os.getcwd(), "compiled")
    kernels = {x.__name__: x for x in map(_innermost, vars(module).values()) if isinstance(x, triton.JITFunction)}
    kernel = kernels.get(launch["kernel"])
    if kernel is None:
        return {"failure": _hidden(launch["kernel"])} if _first_line("".join(linecache.getlines(module.__file__)), launch["kernel"]) else {}
    target = launch.get("target") if launch.get("target") in TARGETS else TARGETS[0]
    constants = {_path(kernel.arg_names, name): _constant(value) for name, value in launch["constants"].items()}
    options = {name: value for name, value in launch["options"].items() if name in _OPTIONS and type(value) is int}
    try:
        made = triton.compile(ASTSource(kernel, launch["signature"], constants), target=GPUTarget("cuda", target, 32), options=options)
    except (OSError, MemoryError, SubprocessError) as error:  # no room, no process, no file: the machine's trouble, not the answer's
        return {"failure": {"kind": "untried", "type": type(error).__name__, "message": " ".join(str(error).split())[:200], "frames": []}}
    except Exception as error:
        return {"failure": _told(error, module.__file__, kernels)}
    rounded = launch.get("exact") and _rounded(made.asm["ttir"], module.__file__)
    return {"failure": rounded} if rounded else {}


def _rounded(ir: str, filename: str) -> dict | None:
    """The first product of float32 tiles that a GPU takes in TF32, in Triton's own intermediate text; None where each is exact."""
    found = re.search(r"tt\.dot\b.*inputPrecision = tf32 : tensor<[\dx]+xf32>.*loc\((#\w+)\)", ir)
    if not found:
        return None
    places, at, line = dict(re.findall(r"^(#\w+) = loc\((.*)\)$", ir, re.M)), found[1], 0
    for _ in range(8):  # a place may be another one with a name
        said = places.get(at, "")
        if exact := re.search(r'"([^"]*)":(\d+):\d+', said):
            line = int(exact[2]) if exact[1] == filename else 0
            break
        if not (at := (re.search(r"#\w+", said) or [""])[0]):
            break
    frames = [[line, "", linecache.getline(filename, line).strip()[:200]]] if line else []
    return {"kind": "tf32", "type": "", "message": "a product of float32 tiles is rounded to TF32", "frames": frames}


def _path(names: list[str], name: str) -> tuple[int, ...]:
    """Where the compiler keeps a constant: `strides[2]` is part 2 of the argument `strides`."""
    first, *parts = re.findall(r"\w+", name)
    return (names.index(first), *map(int, parts))


def _innermost(x):
    """The kernel under @triton.autotune and @triton.heuristics."""
    from triton.runtime.autotuner import Autotuner, Heuristics

    while isinstance(x, Autotuner | Heuristics):
        x = x.fn
    return x


def _hidden(name: str) -> dict:
    """Defined within a function, a kernel cannot be found without calling that function."""
    return {"kind": "untried", "type": "", "message": f"`{name}` is defined inside a function; put it at the top level", "frames": []}


def _constant(value):
    """A constexpr as it was; dtypes travel by their name."""
    import triton.language as tl

    return getattr(tl, value[3:]) if isinstance(value, str) and value.startswith("tl.") else value


def _told(error: BaseException, filename: str, kernels: dict) -> dict:
    """The innermost error of the compiler as plain data."""
    from triton.compiler.errors import CompilationError

    chain: list[BaseException] = [error]
    while chain[-1].__cause__ is not None and len(chain) < 20:
        chain.append(chain[-1].__cause__)
    inner = next((link for link in reversed(chain) if isinstance(link, CompilationError)), error)
    text = "".join(linecache.getlines(filename))
    if isinstance(inner, CompilationError):
        name = re.search(r"def\s+(\w+)", inner.src or "")
        message = str(inner.error_message or chain[-1]).strip() or type(chain[-1]).__name__
        first = _first_line(text, name[1] if name else "")
        line = first + getattr(inner.node, "lineno", 1) - 1 if first else 0
    else:
        message = str(inner).strip() or type(inner).__name__
        line = 0
        if found := _foreign_call(text, message, kernels):
            line, message = found
    message = next((said for pattern, said in _SAID if pattern.search(message)), message)
    frames = [[line, "", linecache.getline(filename, line).strip()[:200]]] if line > 0 else []
    return {"kind": "compile", "type": type(inner).__name__, "message": " ".join(message.split())[:500], "frames": frames}


def _first_line(text: str, name: str) -> int:
    """The line of a function's `def`; 0 where the text has none of that name."""
    return next((n.lineno for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef) and n.name == name), 0)


def _foreign_call(text: str, message: str, kernels: dict) -> tuple[int, str] | None:
    """(line, sentence) of the call that is not Triton's: the compiler names the object, not the place."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef) or node.name not in kernels:
            continue
        for call in (n for n in ast.walk(node) if isinstance(n, ast.Call)):
            path = ast.unparse(call.func)
            if re.fullmatch(r"[\w.]+", path) and repr(_looked_up(kernels[node.name].fn.__globals__, path)) in message:
                return call.lineno, f"`{path}` cannot be called in a kernel: the compiler knows `triton.language` and your own @triton.jit functions"
    return None


def _looked_up(names: dict, path: str):
    first, *rest = path.split(".")
    found = names.get(first)
    for attribute in rest:
        found = getattr(found, attribute, None)
    return found
