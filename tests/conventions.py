"""The rules of this code base as functions: sources in, violations out, each violation one line `path:line: reason`.

`test_conventions.py` applies them to the tree and, each one, to a small bad example.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# A package of sgs imports from itself, from the groups before its own, and, without cycles, from its own group.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset({"numeric"}),
    frozenset({"ir"}),
    frozenset({"registry"}),
    frozenset({"builder"}),
    frozenset({"ops"}),
    frozenset({"config", "frontends", "sim", "img", "passes", "engine", "data"}),
    frozenset({"quant", "retrain", "compile", "report"}),
    frozenset({"modes", "pipelines", "postprocess", "simulation", "evaluate", "compare"}),
    frozenset({"products"}),
    frozenset({"python_api"}),
    frozenset({"cli"}),
)
RANK = {layer: rank for rank, group in enumerate(LAYERS) for layer in group}

# `.gitignore` comes with version control; the rest is what a visitor sees.
TOP_LEVEL = frozenset(
    {".ci", ".gitignore", "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "pyproject.toml"}
    | {"DumpDebug", "SGS_Models", "Scripts", "bench", "docs", "schema", "tests"}
)

LAUNCHER_FOLDERS = ("Scripts/ConvertTool", "Scripts/calibrator", "DumpDebug")
TENSORFLOW = "sgs.frontends.tensorflow"
TORCH = ("sgs.retrain", "sgs.frontends.pytorch.")
LAUNCHER_LINES = 12
FUNCTION_LINES = 150

# Absolute paths of somebody's machine. Manuals write `~/` and `/path/to/` instead.
MACHINE_PATH = re.compile(rb"(?<![\w.~-])/(?:work|root|Users|home/[a-z])[\w.-]*/|[A-Z]:\\Users\\|/tmp/(?=venv)")


@dataclass(frozen=True)
class Source:
    """A Python file: its path from the root, with forward slashes, and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def is_package(self) -> bool:
        return self.path.endswith("/__init__.py")

    @property
    def module(self) -> str:
        """Dotted name: `Scripts/sgs/ir/graph.py` → `sgs.ir.graph`; the `__init__` of a package drops out."""
        return self.path.removeprefix("Scripts/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def at(self, node: ast.AST | int, reason: str) -> str:
        line = node if isinstance(node, int) else getattr(node, "lineno", 1)
        return f"{self.path}:{line}: {reason}"


def project_files() -> list[str]:
    """The project's files, as paths from the root: tracked ones and those that git would offer to add."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):  # no git, or an unpacked archive
        made = re.compile(r"(^|/)(\.git|\.venv|build|dist|__pycache__|\.\w+_cache|[^/]*\.egg-info)/")
        every = (path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*"))
        listed = [path for path in every if not made.search(path)]
    return sorted({path for path in listed if path and (ROOT / path).is_file()})


def python_sources(*folders: str) -> list[Source]:
    """Hand-written Python files under the folders; what flatc generated is left out."""
    inside = tuple(f"{folder}/" for folder in folders)
    paths = [path for path in project_files() if path.startswith(inside) and path.endswith(".py")]
    return [Source(path, (ROOT / path).read_text("utf-8")) for path in paths if "/generated/" not in path]


def launchers() -> list[Source]:
    """The command-line programs: the Python files directly inside the launcher folders."""
    return [s for s in python_sources(*LAUNCHER_FOLDERS) if s.path.rpartition("/")[0] in LAUNCHER_FOLDERS]


# ---- imports ---------------------------------------------------------------------------------------------------------


def imports(source: Source) -> Iterator[tuple[str, int]]:
    """(absolute dotted target, line) of every import, at any depth; `from a import b` gives `a.b`."""
    package = source.module.split(".") if source.is_package else source.module.split(".")[:-1]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = [*start, *(node.module or "").split(".")]
            yield from ((".".join(filter(None, [*base, alias.name])), node.lineno) for alias in node.names)


def layer_of(dotted: str) -> str:
    """The layer of sgs that a dotted name belongs to: `sgs.ir.graph` → `ir`; sgs itself (`sgs.__version__`) → ``."""
    parts = dotted.split(".")
    return "" if len(parts) == 1 or parts[1].startswith("__") else parts[1]


def layer_imports(sources: Iterable[Source]) -> Iterator[tuple[Source, int, str, str]]:
    """(source, line, importing layer, imported layer) of every import between different layers of sgs."""
    for source in sources:
        if source.module.split(".")[0] != "sgs":
            continue
        importer = layer_of(source.module)
        for target, line in imports(source):
            imported = layer_of(target)
            if target.split(".")[0] == "sgs" and imported and imported != importer:
                yield source, line, importer, imported


def import_direction_violations(sources: Iterable[Source]) -> list[str]:
    """Imports against the order of the layers, and layers that the order does not know."""
    found = []
    for source, line, importer, imported in layer_imports(sources):
        unknown = next((layer for layer in (importer, imported) if layer and layer not in RANK), None)
        if unknown is not None:
            found.append(source.at(line, f"sgs.{unknown} has no place in the order of the layers"))
        elif not importer:
            found.append(source.at(line, f"sgs/__init__.py runs before every layer, so it cannot import {imported}"))
        elif RANK[imported] > RANK[importer]:
            found.append(source.at(line, f"sgs.{importer} must not import from sgs.{imported}, a layer above it"))
    return found


def import_cycle_violations(sources: Iterable[Source]) -> list[str]:
    """A cycle between layers, if there is one. Rows of one group may import each other, but one way only."""
    graph: dict[str, set[str]] = {}
    for _, _, importer, imported in layer_imports(sources):
        graph.setdefault(importer, set()).add(imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # graphlib lists each node before the one that needs it: reversed, the arrow reads "imports".
        return ["import cycle: " + " → ".join(f"sgs.{layer}" for layer in reversed(error.args[1]))]
    return []


def framework_violations(sources: Iterable[Source]) -> list[str]:
    """sgs.ops imports numpy and the standard library only; torch belongs to sgs.retrain and to the modules behind the
    platform pytorch, TensorFlow to its frontend, Dask to sgs.data.cluster."""
    allowed_in_ops = sys.stdlib_module_names | {"numpy", "sgs"}
    found = []
    for source in sources:
        for target, line in imports(source):
            top = target.split(".")[0]
            if source.module.startswith("sgs.ops") and top not in allowed_in_ops:
                found.append(source.at(line, f"sgs.ops imports numpy and nothing else from outside, not {top}"))
            elif top in {"torch", "torchvision"} and not source.module.startswith(TORCH):
                found.append(source.at(line, f"only {', '.join(TORCH)} import {top}"))
            elif top in {"tensorflow", "tf2onnx", "keras", "tf_keras"} and not source.module.startswith(
                "sgs.frontends.tensorflow"
            ):
                found.append(source.at(line, f"only sgs.frontends.tensorflow imports {top}"))
            elif top in {"dask", "distributed"} and source.module != "sgs.data.cluster":
                found.append(source.at(line, f"only sgs.data.cluster imports {top}"))
    return found


def shadowing_violations(paths: Iterable[str]) -> list[str]:
    """Modules of sgs named like a program beside them: the program's folder is searched first and would win."""
    shadowed = {"calibrator", "compiler"}
    return [
        f"{path}:1: no module of sgs is named {part}: the program of that name would shadow it"
        for path in paths
        if path.startswith("Scripts/sgs/")
        for part in Path(path).with_suffix("").parts
        if part in shadowed
    ]


# ---- code ------------------------------------------------------------------------------------------------------------


def function_length_violations(sources: Iterable[Source], limit: int = FUNCTION_LINES) -> list[str]:
    """Functions longer than the limit, from `def` to the last line of the body."""
    found = []
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > limit:
                    found.append(source.at(node, f"{node.name} has {lines} lines, the limit is {limit}"))
    return found


def print_or_exit_violations(sources: Iterable[Source]) -> list[str]:
    """Printing or ending the process inside the library: both are for sgs.cli, which knows who is watching."""
    banned = {"print", "exit", "quit", "sys.exit", "os._exit", "SystemExit"}
    found = []
    for source in sources:
        if layer_of(source.module) == "cli":
            continue
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in banned:
                found.append(source.at(node, f"{ast.unparse(node.func)}() outside sgs.cli"))
        for target, line in imports(source):
            if target in banned:
                found.append(source.at(line, f"{target} imported outside sgs.cli"))
    return found


def swallowed_exception_violations(sources: Iterable[Source]) -> list[str]:
    """Bare `except:`, and handlers or `suppress` that drop Exception without a trace."""
    broad = {"Exception", "BaseException"}
    found = []
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ExceptHandler):
                if node.type is None:
                    found.append(source.at(node, "bare except"))
                elif broad & _names(node.type) and all(_does_nothing(statement) for statement in node.body):
                    found.append(source.at(node, "Exception caught and dropped"))
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"suppress", "contextlib.suppress"}:
                found += [source.at(node, "Exception suppressed") for a in node.args if broad & _names(a)]
    return found


def _names(expression: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}


def _does_nothing(statement: ast.stmt) -> bool:
    constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return constant or isinstance(statement, (ast.Pass, ast.Continue))


# ---- launchers and files ---------------------------------------------------------------------------------------------


def launcher_violations(sources: Iterable[Source]) -> list[str]:
    """Launchers longer than a dozen lines, or without the guard that processes started by spawn need."""
    found = []
    for source in sources:
        lines = len(source.text.splitlines())
        if lines > LAUNCHER_LINES:
            found.append(source.at(lines, f"{lines} lines, a launcher has at most {LAUNCHER_LINES}"))
        if not any(isinstance(n, ast.If) and ast.unparse(n.test) == "__name__ == '__main__'" for n in source.tree.body):
            found.append(source.at(1, 'no `if __name__ == "__main__"`: a spawned process would run the program again'))
    return found


def top_level_violations(paths: Iterable[str]) -> list[str]:
    """Differences between what lies at the top of the tree and what belongs there."""
    present = {path.split("/")[0] for path in paths}
    return [
        *(f"{name}: not one of the files and folders at the top" for name in sorted(present - TOP_LEVEL)),
        *(f"{name}: missing at the top" for name in sorted(TOP_LEVEL - present)),
    ]


def machine_path_violations(files: Iterable[tuple[str, bytes]]) -> list[str]:
    """Paths of somebody's machine in a file, text or binary (an exported network may carry its author's paths)."""
    found = []
    for path, content in files:
        for match in MACHINE_PATH.finditer(content):
            line = content.count(b"\n", 0, match.start()) + 1
            found.append(f"{path}:{line}: machine path {match.group().decode(errors='replace')}")
    return found


def version_violations(pyproject: str, package_init: str) -> list[str]:
    """A `version` of pyproject.toml that differs from `sgs.__version__`. (Python 3.10 has no tomllib.)"""
    declared: Sequence[str] = re.findall(r'^version = "([^"]+)"', pyproject, re.MULTILINE)
    stated: Sequence[str] = re.findall(r'^__version__ = "([^"]+)"', package_init, re.MULTILINE)
    if len(declared) == 1 and declared == stated:
        return []
    return [f"pyproject.toml says version {declared}, Scripts/sgs/__init__.py {stated}; one each, and equal, is right"]
