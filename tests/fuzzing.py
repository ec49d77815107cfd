"""Damaged files by the thousand, tried in processes of their own: what the `fuzz_*.py` share.

A crash, a hang and a large allocation are found as well as an exception that should not be. A file is made by its
number and the seed of the campaign alone.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

SLICE = 250  # files that one process tries
SECONDS = 20  # for one file


class Unmistakable(BaseException):
    """Not an Exception, so that nobody takes it for his own."""


class TakesTooLong(Unmistakable):
    """A file that takes more than its time."""


class Finding(Exception):
    """What must not be."""


# -- damage to bytes ---------------------------------------------------------------------------------------------------
def cut(data: bytes, rng: random.Random) -> bytes:
    """Shorter, anywhere or by little, or longer."""
    size = len(data)
    if rng.random() < 0.1:
        return data + rng.randbytes(rng.choice([1, 4, 64]))
    return data[: rng.choice([0, rng.randrange(1, 64), rng.randrange(size), max(0, size - 64), size - 1])]


def flip(data: bytes, rng: random.Random) -> bytes:
    """A bit, two or many, one of the first bytes, a run of bytes, a block of zeros, or two runs that change places."""
    found, size = bytearray(data), len(data)
    how = rng.randrange(7)
    if how < 3:
        for _ in range((1, 2, rng.randrange(3, 65))[how]):
            found[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif how == 3:
        found[rng.randrange(min(size, 96))] ^= 1 << rng.randrange(8)
    elif how == 4:
        start = rng.randrange(size)
        found[start : start + 8] = rng.randbytes(len(found[start : start + 8]))
    elif how == 5:
        start = rng.randrange(size)
        found[start : start + 512] = bytes(len(found[start : start + 512]))
    else:
        one, other = (rng.randrange(max(1, size - 16)) for _ in range(2))
        found[one : one + 16], found[other : other + 16] = data[other : other + 16], data[one : one + 16]
    return bytes(found[:size])


# -- a program that is given one -------------------------------------------------------------------------------------
def exit_code(program: Callable[[list[str]], int], arguments: list[str]) -> int:
    """0 or 2. Raises Finding, with the end of what the program told, for any other."""
    told = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(told):
        code = program(arguments)
    if code not in (0, 2):
        raise Finding(f"exit code {code}: {' | '.join(told.getvalue().strip().splitlines()[-6:])}")
    return code


# -- many files --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Fuzz:
    """A kind of campaign.

    `script` runs it (by `main`); file number i is one of `kinds[i % len(kinds)]`; `prepare` loads what is loaded once;
    `try_one(seed, index)` says what became of a file, one of `outcomes`, or raises where something must not be.
    `memory`: address space that a process may take beyond what it has when it begins; `growth`: of the memory in use,
    by one file.
    """

    script: str
    kinds: Sequence[str]
    outcomes: Sequence[str]
    prepare: Callable[[], object]
    try_one: Callable[[int, int], str]
    memory: int
    growth: int

    # -- one process ---------------------------------------------------------------------------------------------------
    def work(self, seed: int, start: int, stop: int) -> None:
        """Try files start to stop in this process; a line of JSON before and after each."""
        self.prepare()
        _limit_memory(self.memory)
        signal.signal(signal.SIGALRM, _give_up)
        for index in range(start, stop):
            _say(start=index)
            used, begin = _peak_memory(), time.perf_counter()
            faulthandler.dump_traceback_later(3 * SECONDS, exit=True)  # where the alarm is not heard, in compiled code
            signal.alarm(SECONDS)
            try:
                outcome, what = self.try_one(seed, index), ""
            except (Exception, Unmistakable) as error:
                outcome, what = "found", f"{type(error).__name__}: {error} at {_where(error)}"
            signal.alarm(0)
            faulthandler.cancel_dump_traceback_later()
            grown = _peak_memory() - used
            if grown > self.growth and outcome != "found":
                outcome, what = "found", f"{outcome}, but took {grown >> 20} MiB"
            self._result(index, outcome, what, seconds=round(time.perf_counter() - begin, 2))

    def _result(self, index: int, outcome: str, what: str, seconds: float) -> None:
        _say(index=index, kind=self._kind(index), outcome=outcome, what=what, seconds=seconds)

    def _kind(self, index: int) -> str:
        return self.kinds[index % len(self.kinds)]

    # -- many processes ------------------------------------------------------------------------------------------------
    def attempt(self, seed: int, start: int, stop: int) -> Iterator[dict[str, Any]]:
        """Results of the files, by processes of their own; one that kills its process is a result as well."""
        while start < stop:
            command = [sys.executable, self.script, "--seed", str(seed), "--slice", str(start), str(stop)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            lines = [json.loads(line) for line in done.stdout.splitlines()]
            yield from (line for line in lines if "outcome" in line)
            if done.returncode == 0:
                return
            begun = [line["start"] for line in lines if "start" in line]
            if not begun:
                raise RuntimeError(f"no file was tried: {done.stderr[-2000:]}")
            what = f"the process ended with {done.returncode}: {done.stderr.strip()[-1500:]}"
            last = begun[-1]
            yield {"index": last, "kind": self._kind(last), "outcome": "found", "what": what, "seconds": 0}
            start = last + 1

    def campaign(self, seed: int, files: int, jobs: int) -> list[dict[str, Any]]:
        """Results of all files, in order."""
        size = max(1, min(SLICE, -(-files // jobs)))
        slices = [(start, min(start + size, files)) for start in range(0, files, size)]
        with ThreadPoolExecutor(jobs) as pool:
            parts = pool.map(lambda ends: list(self.attempt(seed, *ends)), slices)
            return [result for part in parts for result in part]

    def report(self, results: list[dict[str, Any]]) -> int:
        """Print a table of what became of the files, and what was found; returns how much was."""
        outcomes = Counter((result["kind"], result["outcome"]) for result in results)
        columns = (*self.outcomes, "found")
        print(f"{'':10}" + "".join(f"{name:>11}" for name in columns))
        for kind in dict.fromkeys(self.kinds):
            print(f"{kind:10}" + "".join(f"{outcomes[kind, name]:>11}" for name in columns))
        found = [result for result in results if result["outcome"] == "found"]
        for result in found:
            print(f"file {result['index']} ({result['kind']}): {result['what']}")
        slowest = max(results, key=lambda result: float(result["seconds"]))
        print(
            f"{len(results)} files, {len(found)} findings; the slowest was {slowest['index']}, {slowest['seconds']} s"
        )
        return len(found)

    def main(self, description: str, files: int = 5000) -> int:
        """Run a campaign, a slice of one, or one file; 1 when something was found."""
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--files", type=int, default=files)
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--jobs", type=int, default=2)
        parser.add_argument("--only", type=int, metavar="NUMBER", help="try this file alone")
        parser.add_argument("--slice", type=int, nargs=2, help=argparse.SUPPRESS)
        options = parser.parse_args()
        if options.only is not None:
            print(self._kind(options.only), self.try_one(options.seed, options.only))
            return 0
        if options.slice:
            self.work(options.seed, *options.slice)
            return 0
        return 1 if self.report(self.campaign(options.seed, options.files, options.jobs)) else 0


def _say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def _limit_memory(more: int) -> None:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _give_up(signum: int, frame: FrameType | None) -> None:
    raise TakesTooLong(f"more than {SECONDS} s")


def _where(error: BaseException) -> str:
    """The innermost place of ours."""
    places = [f for f in traceback.extract_tb(error.__traceback__) if "Scripts" in f.filename] or [None]
    place = places[-1]
    return "?" if place is None else f"{Path(place.filename).name}:{place.lineno}"
