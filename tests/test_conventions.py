"""The rules of `conventions.py`: kept by the tree, and seen to be broken by a small bad example each."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import conventions as rules
from conventions import ROOT, Source

LAUNCHERS = [source.path for source in rules.launchers()]


def everything() -> list[Source]:
    return rules.python_sources("Scripts", "DumpDebug", "tests", "bench")


def library() -> list[Source]:
    return rules.python_sources("Scripts/sgs")


def check(violations: list[str]) -> None:
    assert not violations, "\n" + "\n".join(violations)


# ---- the tree --------------------------------------------------------------------------------------------------------


def test_the_library_is_found() -> None:
    assert {"sgs", "sgs.cli"} <= {source.module for source in library()}, "the rules would hold of nothing"
    assert len(LAUNCHERS) >= 6


def test_imports_point_one_way() -> None:
    check(rules.import_direction_violations(library()))


def test_layers_form_no_import_cycle() -> None:
    check(rules.import_cycle_violations(library()))


def test_frameworks_stay_where_they_belong() -> None:
    check(rules.framework_violations(library()))


def test_no_module_is_shadowed_by_a_program() -> None:
    check(rules.shadowing_violations(source.path for source in library()))


def test_functions_are_short() -> None:
    check(rules.function_length_violations(everything()))


def test_the_library_neither_prints_nor_exits() -> None:
    check(rules.print_or_exit_violations(library()))


def test_no_exception_is_swallowed() -> None:
    check(rules.swallowed_exception_violations(everything()))


def test_launchers_are_thin() -> None:
    check(rules.launcher_violations(rules.launchers()))


def test_top_level_is_as_agreed() -> None:
    check(rules.top_level_violations(rules.project_files()))


def test_no_machine_paths() -> None:
    check(rules.machine_path_violations((path, (ROOT / path).read_bytes()) for path in rules.project_files()))


def test_versions_agree() -> None:
    init = ROOT / "Scripts/sgs/__init__.py"
    check(rules.version_violations((ROOT / "pyproject.toml").read_text("utf-8"), init.read_text("utf-8")))


@pytest.mark.parametrize("through_symlink", [False, True], ids=["direct", "symlink"])
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_launcher_runs_from_another_folder(launcher: str, through_symlink: bool, tmp_path: Path) -> None:
    program = ROOT / launcher
    if through_symlink:
        program = tmp_path / "linked.py"
        program.symlink_to(ROOT / launcher)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(program), "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    assert not done.stderr


# ---- the rules themselves --------------------------------------------------------------------------------------------

Rule = Callable[[list[Source]], list[str]]

# (rule, path, text, part of the one violation expected; "" for none)
EXAMPLES: list[tuple[Rule, str, str, str]] = [
    (rules.import_direction_violations, "Scripts/sgs/ir/graph.py", "from sgs.ops import add", "layer above"),
    (rules.import_direction_violations, "Scripts/sgs/ir/graph.py", "def f():\n    import sgs.cli.x", "graph.py:2: "),
    (rules.import_direction_violations, "Scripts/sgs/ir/graph.py", "from ..ops.add import ROWS", "layer above"),
    (rules.import_direction_violations, "Scripts/sgs/ir/__init__.py", "from .. import engine", "layer above"),
    (rules.import_direction_violations, "Scripts/sgs/errors.py", "from sgs import numeric", "layer above"),
    (rules.import_direction_violations, "Scripts/sgs/sim/read.py", "from sgs.quant import plan", "layer above"),
    (rules.import_direction_violations, "Scripts/sgs/misc.py", "from sgs import ir", "no place in the order"),
    (rules.import_direction_violations, "Scripts/sgs/ir/graph.py", "import sgs.misc", "no place in the order"),
    (rules.import_direction_violations, "Scripts/sgs/__init__.py", "from sgs.ir import Node", "runs before every"),
    (rules.import_direction_violations, "Scripts/sgs/sim/read.py", "from sgs.ir.graph import Graph", ""),
    (rules.import_direction_violations, "Scripts/sgs/sim/read.py", "from sgs.config import ini", ""),
    (rules.import_direction_violations, "Scripts/sgs/ir/graph.py", "from .text import dump", ""),
    (rules.import_direction_violations, "Scripts/sgs/ir/graph.py", "from sgs import __version__", ""),
    (rules.framework_violations, "Scripts/sgs/ops/add.py", "import onnxruntime as ort", "not onnxruntime"),
    (rules.framework_violations, "Scripts/sgs/ops/add.py", "from cv2 import LUT", "not cv2"),
    (rules.framework_violations, "Scripts/sgs/ops/add.py", "import math\nimport numpy\nfrom sgs.ir import Node", ""),
    (rules.framework_violations, "Scripts/sgs/quant/plan.py", "import torch.nn", "only sgs.retrain"),
    (rules.framework_violations, "Scripts/sgs/retrain/train.py", "import torch.nn", ""),
    (rules.framework_violations, "Scripts/sgs/frontends/pytorch/script.py", "import torch.nn", ""),
    (rules.framework_violations, "Scripts/sgs/frontends/onnx_model.py", "import torch", "only sgs.retrain"),
    (rules.framework_violations, "Scripts/sgs/quant/gather.py", "import distributed", "only sgs.data.cluster"),
    (
        rules.framework_violations,
        "Scripts/sgs/pipelines.py",
        "import tensorflow as tf",
        "only sgs.frontends.tensorflow",
    ),
    (rules.framework_violations, "Scripts/sgs/frontends/tensorflow/read.py", "import keras", ""),
    (rules.framework_violations, "Scripts/sgs/data/cluster.py", "def f():\n    import dask.config", ""),
    (rules.function_length_violations, "tests/x.py", "class A:\n  def f():\n" + "    1\n" * 150, "f has 151 lines"),
    (rules.function_length_violations, "tests/x.py", "def f():\n" + "    1\n" * 149, ""),
    (rules.print_or_exit_violations, "Scripts/sgs/ir/text.py", "print('x')", "print() outside"),
    (rules.print_or_exit_violations, "Scripts/sgs/ir/text.py", "import sys\nsys.exit(2)", "text.py:2: sys.exit()"),
    (rules.print_or_exit_violations, "Scripts/sgs/ir/text.py", "from sys import exit", "imported"),
    (rules.print_or_exit_violations, "Scripts/sgs/ir/text.py", "raise SystemExit(2)", "SystemExit() outside"),
    (rules.print_or_exit_violations, "Scripts/sgs/cli/text.py", "print('x')", ""),
    (rules.swallowed_exception_violations, "tests/x.py", "try:\n  1\nexcept:\n  raise", "x.py:3: bare except"),
    (rules.swallowed_exception_violations, "tests/x.py", "try:\n  1\nexcept Exception:\n  pass", "dropped"),
    (rules.swallowed_exception_violations, "tests/x.py", "try:\n  1\nexcept (OSError, Exception):\n  ...", "dropped"),
    (rules.swallowed_exception_violations, "tests/x.py", "with contextlib.suppress(Exception):\n  1", "suppressed"),
    (rules.swallowed_exception_violations, "tests/x.py", "try:\n  1\nexcept OSError:\n  pass", ""),
    (rules.swallowed_exception_violations, "tests/x.py", "try:\n  1\nexcept Exception as e:\n  log(e)", ""),
    (rules.launcher_violations, "DumpDebug/x.py", "if __name__ == '__main__':\n" + "  1\n" * 12, "13 lines"),
    (rules.launcher_violations, "DumpDebug/x.py", "import sys", "no `if __name__"),
]


@pytest.mark.parametrize(("rule", "path", "text", "expected"), EXAMPLES)
def test_rule_on_an_example(rule: Rule, path: str, text: str, expected: str) -> None:
    found = rule([Source(path, text)])
    assert len(found) == bool(expected), found
    assert all(expected in violation for violation in found)


def test_a_cycle_between_siblings_is_found() -> None:
    one_way = Source("Scripts/sgs/sim/read.py", "import sgs.config.ini")
    back = Source("Scripts/sgs/config/ini.py", "from sgs.sim import read")
    assert rules.import_cycle_violations([one_way]) == []
    (violation,) = rules.import_cycle_violations([one_way, back])
    assert violation in {
        "import cycle: sgs.sim → sgs.config → sgs.sim",
        "import cycle: sgs.config → sgs.sim → sgs.config",
    }


def test_shadowing_names_are_found() -> None:
    good = ["Scripts/sgs/cli/calibrator_tool.py", "Scripts/calibrator/calibrator.py", "Scripts/sgs/compile/emit.py"]
    bad = ["Scripts/sgs/quant/calibrator.py", "Scripts/sgs/compiler/emit.py"]
    assert [violation.split(":")[0] for violation in rules.shadowing_violations(good + bad)] == bad


def test_top_level_strangers_and_gaps_are_found() -> None:
    agreed = [f"{name}/x" for name in sorted(rules.TOP_LEVEL)]
    assert rules.top_level_violations(agreed) == []
    assert rules.top_level_violations([*agreed[1:], "notes.txt"]) == [
        "notes.txt: not one of the files and folders at the top",
        ".ci: missing at the top",
    ]


@pytest.mark.parametrize("folders", [("work", "main"), ("home", "ann"), ("root", "x"), ("tmp", "venv")])
def test_machine_paths_are_found(folders: tuple[str, ...]) -> None:
    path = "/".join(["", *folders, "model.py"])  # put together here, so that this file holds none
    (violation,) = rules.machine_path_violations([("a.onnx", b"first\n\0see " + path.encode())])
    assert violation.startswith("a.onnx:2: machine path ")


def test_other_paths_are_let_be() -> None:
    text = b"/path/to/model.py ~/work/x https://example.org/work/x a/work/x /usr/bin/env /tmp"
    assert rules.machine_path_violations([("a.md", text)]) == []


def test_versions_that_differ_are_found() -> None:
    pyproject = '[project]\nversion = "1.2.3"\n'
    assert rules.version_violations(pyproject, '__version__ = "1.2.3"') == []
    assert rules.version_violations(pyproject, '__version__ = "1.2.4"')
    assert rules.version_violations(pyproject, "")
