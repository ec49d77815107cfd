"""Processes in which modules of ours run packages that crash, print or take memory as they like."""

from __future__ import annotations

import sys
from os import environ, pathsep
from pathlib import Path

_SCRIPTS = Path(__file__).resolve().parents[2]  # the folder that holds the package


def command_of(module: str, *arguments: str) -> list[str]:
    """What runs `main()` of a module of ours. Unlike `python -m` it does not look for modules in the folder that it is
    started in, where the user may have an onnx.py or a keras.py."""
    start = f"import sys; sys.path[:] = filter(None, sys.path); from {module} import main; main()"
    return [sys.executable, "-c", start, *arguments]


def environment() -> dict[str, str]:
    """The environment of such a process: this one's, in which the package is found."""
    return {**environ, "PYTHONPATH": pathsep.join([str(_SCRIPTS), *filter(None, [environ.get("PYTHONPATH")])])}
