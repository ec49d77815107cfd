"""Share samples among the threads of a process, and among processes (here, or on a cluster: see cluster.py).

Worker processes are programs of their own that import this library and nothing of the caller: neither fork, which
onnxruntime's threads do not survive, nor multiprocessing's spawn, which runs the caller's main module again (a script
without `if __name__ == "__main__"` would start processes without end). The work must be importable, it and its
arguments picklable. A worker ends when its connection does, so none outlives the process that started it, however that
one ended.
"""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Protocol, TypeVar

from sgs.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

WORTH_A_PROCESS = 64  # samples; starting a process costs about a second
LOADING_WORTH_A_PROCESS = 4.0  # seconds of what one thread at a time does
SHARES = 16  # that a process gets its samples in
_PROGRAM = "import sys; sys.path[:] = {path!r}; from sgs.data.shards import serve; serve({descriptor})"
_WORK, _CALL = b"w", b"c"  # kinds of messages to a worker


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_count(asked: int, samples: int) -> int:
    """How many processes to use: what is asked, capped to the processors and to what the samples are worth."""
    return max(1, min(asked, processors(), math.ceil(samples / WORTH_A_PROCESS)))


def map_threads(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Results of `work` on every item, in order, `threads` at a time. Items are made in the calling thread, one more
    ahead of those being worked on.
    """
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def processes_worth(asked: int, seconds: float) -> int:
    """How many processes to use where threads spread the work over the processors, but for `seconds` of it: at most
    what is asked and the processors, and no more than those seconds are worth."""
    return max(1, min(asked, processors(), math.ceil(seconds / LOADING_WORTH_A_PROCESS)))


class Pool(Protocol):
    """Worker processes, wherever they are. Each may use `threads` processors; `sharing` is how many of them, at most,
    share a machine."""

    threads: int
    sharing: int

    def __len__(self) -> int:
        """How many there are."""

    def map(self, work: Callable[..., Result], calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Result]]:
        """(index, result) of `work(*calls[index])`, in the order in which they become ready. The first argument of each
        call is the list of samples that it is about, or of what has one as its `sample`.

        The work itself is sent to each process once: what it keeps in its attributes there, such as a session, serves
        its later calls. Raises what a call raised, and UserError when a process is killed.
        """


class Workers:
    """A `Pool` of processes on this machine, which stand by for work until the `with` block ends."""

    def __init__(self, count: int) -> None:
        self.threads, self.sharing = max(1, processors() // count), count
        self._workers = [_Worker() for _ in range(count)]

    def __len__(self) -> int:
        return len(self._workers)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()

    def map(self, work: Callable[..., Result], calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Result]]:
        """See `Pool`."""
        idle = {worker.connection: worker for worker in self._workers[: len(calls)]}
        for worker in idle.values():
            worker.send(_WORK, work)
        busy: dict[Connection, tuple[_Worker, int]] = {}
        waiting = deque(enumerate(calls))
        while waiting or busy:
            while waiting and idle:
                connection, worker = idle.popitem()
                index, arguments = waiting.popleft()
                worker.send(_CALL, arguments)
                busy[connection] = worker, index
            ready = wait(list(busy))
            for connection in [connection for connection in busy if connection in ready]:
                worker, index = busy.pop(connection)
                result = worker.receive()
                idle[connection] = worker
                yield index, result


def shares(items: Sequence[Item], pool: Pool, at_a_time: int) -> list[Sequence[Item]]:
    """The items in small contiguous shares, for workers that each look at some of them at a time."""
    size = max(at_a_time, math.ceil(len(items) / (len(pool) * SHARES)))
    return [items[start : start + size] for start in range(0, len(items), size)]


def map_shares(pool: Pool, work: Callable[[Sequence[Item]], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Results of `work` on small contiguous shares of `items`, in order."""
    calls = [(share,) for share in shares(items, pool, pool.threads)]
    early: dict[int, Result] = {}
    given = 0
    for index, result in pool.map(work, calls):
        early[index] = result
        while given in early:
            yield early.pop(given)
            given += 1


class _Worker:
    """One process, as the process that started it sees it."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        with theirs:
            program = _PROGRAM.format(path=sys.path, descriptor=theirs.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the process that started it
            )

    def send(self, kind: bytes, content: object) -> None:
        try:
            self.connection.send_bytes(kind + pickle.dumps(content))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._killed() from error

    def receive(self) -> Any:
        try:
            content = self.connection.recv_bytes()
        except (EOFError, ConnectionResetError) as end:
            raise self._killed() from end
        return opened(content)

    def _killed(self) -> UserError:
        reason = "a worker process was killed, most likely because memory ran out"
        return UserError(reason, stage="processes", remedy="use a smaller --num_process")

    def end(self) -> None:
        self.connection.close()
        self._process.kill()
        self._process.wait()


def serve(descriptor: int) -> None:
    """What a worker runs: read work and arguments from the connection, write (result, error, traceback)."""
    connection = Connection(descriptor)
    work: Callable[..., Any] | None = None
    sent = b""
    while True:
        try:
            message = connection.recv_bytes()
        except (EOFError, ConnectionResetError):
            return
        if message[:1] == _WORK:
            work, sent = None, message
            continue
        try:
            work = work or pickle.loads(sent[1:])
            content = answer(work, message[1:])
        except Exception as error:
            content = failure(error)
        try:
            connection.send_bytes(content)
        except (BrokenPipeError, ConnectionResetError):
            return


# -- what calls and answers are on their way ---------------------------------------------------------------------------
def answer(work: Callable[..., Any], arguments: bytes) -> bytes:
    """The outcome of `work` on pickled arguments, pickled: (result, error, traceback)."""
    try:
        return pickle.dumps((work(*pickle.loads(arguments)), None, ""))
    except Exception as error:
        return failure(error)


def opened(content: bytes) -> Any:
    """The result in an answer. Raises the error in it."""
    result, error, trace = pickle.loads(content)
    if error is not None:
        raise error from RuntimeError(f"in a worker process:\n{trace}")
    return result


def failure(error: Exception) -> bytes:
    """The answer that an error is being handled."""
    trace = traceback.format_exc()
    try:
        return pickle.dumps((None, pickle.loads(pickle.dumps(error)), trace))
    except Exception:  # an exception of somebody's script may be of any make
        return pickle.dumps((None, RuntimeError(repr(error)), trace))
