"""Blocks of the pages for users: files that a page shows, and shell commands, run in their order as a reader would.

What stands in front of a block says what is to be done with it, in a comment that readers do not see:

    <!-- file: parameters.json -->      the block is that file
    <!-- needs torch: it retrains -->   run where the package is installed (capitals: where the variable is set)
    <!-- not run: it takes hours -->    never run
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template

import pytest

import sgs
from conventions import ROOT

# In the order in which they are read: what one makes, later ones use.
PAGES = list(
    dict.fromkeys(
        [
            ROOT / "README.md",
            ROOT / "docs/TOUR.md",
            *sorted((ROOT / "docs/tools").glob("*.md")),
            *sorted((ROOT / "docs").glob("*.md")),
            *(ROOT / name for name in ("CHANGELOG.md", "schema/README.md", "SGS_Models/README.md")),
            *sorted((ROOT / "Scripts").rglob("*.md")),
        ]
    )
)

BLOCK = re.compile(r"^(?:<!-- ([^\n]*) -->\n+)?(?P<indent> *)```(\w*)\n(.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"(file): (\S+)|(needs) (\w+): .+|(not run): .+")
# What programs import: the server has it before it begins them.
PRELOADED = ["sgs.cli.sgs_converter", "sgs.cli.simulator_tool", "sgs.cli.torch_calibrator_tool"]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page. `mark`: what the comment in front of it says, as MARK reads it."""

    page: str
    language: str
    text: str
    mark: tuple[str, ...] = ()

    @property
    def file(self) -> str | None:
        return self.mark[1] if self.mark[:1] == ("file",) else None

    @property
    def runs(self) -> bool:
        """Whether its commands are to be run here."""
        kind, *rest = self.mark or ("",)
        if kind == "needs":
            (name,) = rest
            return name in os.environ if name.isupper() else importlib.util.find_spec(name) is not None
        return kind != "not run"

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """(line, words) of every command, continued lines joined and variables put in."""
        variables: dict[str, str] = {}
        for line in self.text.replace("\\\n", " ").splitlines():
            while match := re.match(r"([A-Z]+)=([^;\s]*)(;\s*|\s*$)", line):
                variables[match[1]] = match[2]
                line = line[match.end() :]
            line = Template(line).safe_substitute(variables)
            words = shlex.split(line, comments=True)
            if words:
                yield line, words


def blocks(page: Path) -> list[Block]:
    """The blocks of a page in their order. Raises ValueError for a comment in front of one that is of no known kind."""
    found = []
    for comment, indent, language, text in BLOCK.findall(page.read_text("utf-8")):
        match = MARK.fullmatch(comment)
        if match is None and re.match(r"file|needs|not run", comment):
            raise ValueError(f"{page}: {comment}")
        mark = tuple(filter(None, match.groups())) if match else ()
        plain = re.sub(f"^{indent}", "", text, flags=re.MULTILINE)
        found.append(Block(page.relative_to(ROOT).as_posix(), language, plain, mark))
    return found


@dataclass
class Reader:
    """Somebody who does what pages say, at the top of a tree of their own in `folder`: what is read is the project's,
    but for `copied` folders; build/ is new, and .venv stands for the environment that `make demo` makes."""

    folder: Path
    copied: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        for source in sorted(ROOT.iterdir()):
            if source.name in self.copied:
                shutil.copytree(source, self.folder / source.name, symlinks=True)
            elif source.name not in ("build", ".git", ".venv") and not source.name.endswith("_cache"):
                (self.folder / source.name).symlink_to(source)
        programs = self.folder / ".venv/bin"
        programs.mkdir(parents=True)
        (programs / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n', "utf-8")
        (programs / "python").chmod(0o755)
        (programs / "activate").write_text(f"PATH={shlex.quote(str(programs))}:$PATH\n", "utf-8")
        for stamp in (".created", ".core", ".test"):
            (self.folder / ".venv" / stamp).touch()

    def does(self, block: Block) -> list[str]:
        """Do what a block says; returns what went wrong, which ends it."""
        if block.file is not None:
            target = self.folder / block.file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, "utf-8")
            return []
        if block.language != "sh" or not block.runs:
            return []
        for line, words in block.commands():
            log = self.folder / "log.txt"
            if words[0] == "python" and not self.copied and not re.search(r"[|<>&;*]", line):
                code = self._program(words[1:], log)
            else:
                code = self._shell(line, log)
            if code:
                return [
                    f"{block.page}: exit code {code}: {' '.join(words)}\n{log.read_text('utf-8', 'replace')[-3000:]}"
                ]
        return []

    def _shell(self, line: str, log: Path) -> int:
        path = f"{self.folder / '.venv/bin'}:{os.environ['PATH']}"
        with log.open("wb") as out:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", line],
                cwd=self.folder,
                env={**os.environ, "PATH": path},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                check=False,
            )
        return done.returncode

    def _program(self, words: list[str], log: Path) -> int | None:
        """A Python program, in a process that has the library already: most of the time of many would be imports."""
        server = multiprocessing.get_context("forkserver")
        server.set_forkserver_preload(PRELOADED)
        process = server.Process(target=_run_program, args=(words, str(self.folder), str(log)))
        with pytest.MonkeyPatch.context() as patch:  # where the server, which this may start, finds the library
            patch.setenv("PYTHONPATH", str(ROOT / "Scripts"), prepend=os.pathsep)
            process.start()
        process.join()
        return process.exitcode


def _run_program(words: list[str], folder: str, log: str) -> None:
    os.chdir(folder)
    with open(log, "wb", buffering=0) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    sys.argv = words
    sys.path.insert(0, str(Path(words[0]).resolve().parent))
    assert Path(sgs.__file__).is_relative_to(ROOT), f"the library of another tree: {sgs.__file__}"
    runpy.run_path(words[0], run_name="__main__")
