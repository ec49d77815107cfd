"""Peak memory of a process, and of the processes that it starts."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

INTERVAL = 0.03  # seconds between two looks at the child processes


class PeakMemory:
    """Peak resident memory while the block runs, in MB: `own` of this process since it began, `tree` of it and its
    children together at their worst moment.

    `own` is VmHWM of /proc: ru_maxrss of getrusage survives exec, so it may be that of the parent. `tree` is the sum of
    proportional set sizes, sampled, of this process and of children that live for two samples (one that is about to
    exec is this process once more); where that is less, it is `own`.
    """

    def __enter__(self) -> PeakMemory:
        self._sampled = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.own = _line_mb(Path("/proc/self/status"), "VmHWM")
        self.tree = max(self.own, self._sampled)

    def _watch(self) -> None:
        before: set[str] = set()
        while not self._stop.wait(INTERVAL):
            children = set(_descendants())
            if children & before:
                total = sum(_line_mb(Path("/proc", pid, "smaps_rollup"), "Pss") for pid in ("self", *children & before))
                self._sampled = max(self._sampled, total)
            before = children


def _descendants() -> list[str]:
    """Process ids of all children and theirs."""
    found, pending = [], ["self"]
    while pending:
        for listing in Path("/proc", pending.pop(), "task").glob("*/children"):
            children = _read(listing).split()
            found += children
            pending += children
    return found


def _line_mb(path: Path, key: str) -> float:
    """A line `key: number kB` of a file in /proc, in MB; 0 when the process has ended."""
    for line in _read(path).splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):  # ended since it was listed
        return ""
