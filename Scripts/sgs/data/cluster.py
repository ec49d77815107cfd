"""Share samples among the worker processes of a Dask cluster.

To Dask, the work is one task, whose result is kept in the workers that need it, and every call is another. Both tasks
are made of Python's own functions and of bytes, so that the scheduler needs not have this library. Dask repeats the
tasks of a worker that is lost in another one; an error that the work raises is a result like any other.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import logging
import os
import pickle
import platform
import re
import socket
import threading
import time
import uuid
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from operator import methodcaller
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import ModuleType
from typing import Any, TypeVar

from sgs import __version__
from sgs.config.nearest import listing
from sgs.data.images import Sample
from sgs.data.shards import answer, opened
from sgs.errors import UserError, raise_all

_log = logging.getLogger(__name__)
Result = TypeVar("Result")

STAGE = "cluster"
CONNECT = 10.0  # seconds in which a scheduler must answer
JOIN = 30.0  # seconds in which the first worker must appear
ABSENCE = 120.0  # seconds in which workers that have all gone must come back
GLANCE = 2.0  # seconds after which to look whether workers have come or gone
LOOKED_FOR = 1000  # samples that every worker must find before the run begins
INSTALL = (
    "start the workers in an environment with this toolchain (pip install) and the same packages, "
    "or with PYTHONPATH=<toolchain>/Scripts"
)
SHARE = (
    "workers use the same files as this program, by the same paths: share the folders, and let workers write results"
)
AGAIN = "see that the cluster is well, and start this program again"
_TURN = threading.Lock()  # a share has all threads and all the memory of its worker process


class Cluster:
    """A `Pool` of the workers that a Dask scheduler has, until the `with` block ends. Workers may come and go.

    Raises UserError for an address where no Dask scheduler answers, and for a scheduler without workers.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._distributed = find_distributed()
        self._marks = ExitStack()
        self._needs = Needs(versions())
        _check_address(address)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # versions that differ are errors below
                self._client = self._distributed.Client(address, timeout=CONNECT, set_as_default=False)
        except Exception as error:  # of Dask, which finds in many ways that the other side is not what it expected
            raise _unreachable(address, str(error)) from error
        self._losses = (self._distributed.CancelledError, self._distributed.client.ClosedClientError, OSError)
        try:
            with self._in_touch():
                self._check_scheduler()
                self._wait_for_workers()
                self._workers: Mapping[str, int] = self._client.nthreads()  # address → threads
        except BaseException:
            self._client.close()
            raise
        self.threads = min(self._workers.values())
        self.sharing = max(Counter(worker.rpartition(":")[0] for worker in self._workers).values())

    def __len__(self) -> int:
        return len(self._workers)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        with self._marks:
            self._client.close()

    def _check_scheduler(self) -> None:
        """Raise UserError for a scheduler of another version of Dask."""
        packages = self._client.get_versions()["scheduler"]["packages"]
        theirs = {name: str(packages.get(name)) for name in ("dask", "distributed")}
        remedy = "install the same version here and there"
        raise_all(_differences(theirs, self.address, versions(), remedy), stage=STAGE)

    def _wait_for_workers(self) -> None:
        """Raise UserError where none comes in time."""
        if not self._client.nthreads():
            _log.warning("the cluster has no workers yet: waiting for them for %d seconds", JOIN)
        try:
            self._client.wait_for_workers(1, timeout=JOIN)
        except self._distributed.TimeoutError as error:
            remedy = f"start some: dask worker {self.address}"
            raise UserError("has no workers", stage=STAGE, file=self.address, remedy=remedy) from error

    @contextmanager
    def _in_touch(self) -> Iterator[None]:
        """Turn what Dask raises when the scheduler does not answer any more into a UserError."""
        try:
            yield
        except self._losses as error:
            raise self._lost("the connection to the scheduler was lost") from error

    def _lost(self, reason: str) -> UserError:
        return UserError(reason, stage=STAGE, file=self.address, remedy=AGAIN)

    # -- before the run ------------------------------------------------------------------------------------------------
    def check(self, files: Iterable[Path], samples: Sequence[Sample], folders: Iterable[Path] = ()) -> None:
        """Raise UserError for workers that lack this library or have other versions of what computes, whose `files`
        (of scripts also the modules beside them) are not those of here, that do not find the samples (of many, some),
        or cannot write into the folders. Workers that come later are checked before they begin."""
        read = {str(file.absolute()): _digest(file) for file in files}
        beside = {str(module): _digest(module) for file in read for module in _modules(Path(file))}
        step = -(-len(samples) // LOOKED_FOR)
        looked_for = [str(file.absolute()) for sample in samples[::step] for file in sample]
        with ExitStack() as stack:  # a new file in a folder tells it from one of the same name on another machine
            places = [folder.absolute() for folder in folders]
            marks = [stack.enter_context(NamedTemporaryFile(dir=place, prefix=".sgs_")).name for place in places]
            self._marks = stack.pop_all()
        known = {module: digest for module, digest in beside.items() if digest is not None}
        self._needs = Needs(versions(), {**read, **known}, looked_for, marks)
        with self._in_touch():
            found = self._client.run(facts, list(self._needs.digests), looked_for, marks, on_error="return")
        problems = [problem for worker, theirs in found.items() for problem in _unfit(worker, theirs, self._needs)]
        raise_all(problems, stage=STAGE)

    # -- the run -------------------------------------------------------------------------------------------------------
    def map(self, work: Callable[..., Result], calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Result]]:
        """See `Pool`. A call at which workers are killed again and again ends the run, naming its samples."""
        import dask

        name = f"sgs-{uuid.uuid4().hex}"
        content = pickle.dumps(_Work(pickle.dumps(work), self._needs))
        with self._in_touch(), dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
            shared = self._client.submit(pickle.loads, content, key=f"{name}-work", pure=False)
        waiting = deque(enumerate(calls))
        running: dict[Any, tuple[int, str]] = {}  # future → its call, and the worker that it was meant for
        try:
            while waiting or running:
                for worker in self._idle(running.values()):
                    if waiting:
                        index, arguments = waiting.popleft()
                        running[self._submit(arguments, shared, worker, f"{name}-{index}")] = index, worker
                for future in self._finished(list(running)):
                    index, _ = running.pop(future)
                    yield index, opened(self._answer(future, calls[index]))
        finally:
            with suppress(*self._losses):  # with the scheduler goes all that it had to do
                self._client.cancel([*running, shared])

    def _idle(self, running: Iterable[tuple[int, str]]) -> list[str]:
        """Workers to give a call each. Those that Dask repeats run in workers that they were not meant for."""
        busy = [worker for _, worker in running]
        return [worker for worker in self._workers if worker not in busy][: max(0, len(self._workers) - len(busy))]

    def _submit(self, arguments: tuple[Any, ...], shared: Any, worker: str, key: str) -> Any:
        """The future of a call: one for each worker at a time, whatever its threads, so that loss hits few."""
        call = methodcaller("answer", pickle.dumps(arguments))
        with self._in_touch():
            return self._client.submit(call, shared, key=key, pure=False, workers=[worker], allow_other_workers=True)

    def _finished(self, futures: Sequence[Any]) -> Iterable[Any]:
        """Those that have finished, at least one unless workers have come. Raises UserError where none are left."""
        seen = time.monotonic()
        while time.monotonic() - seen < ABSENCE:
            before, done = self._workers, set[Any]()
            with self._in_touch(), self._client.as_current():
                if not futures:
                    time.sleep(GLANCE)
                with suppress(self._distributed.TimeoutError):
                    done = self._distributed.wait(futures, GLANCE, return_when="FIRST_COMPLETED").done
                self._workers = self._client.nthreads()
            if done or self._workers.keys() - before.keys():
                return done
            seen = time.monotonic() if self._workers else seen
        raise self._lost("the workers have gone")

    def _answer(self, future: Any, arguments: tuple[Any, ...]) -> bytes:
        """See `shards.answer`. Raises UserError where there is none."""
        with self._in_touch():
            error = future.exception()
            if error is None:
                content: bytes = future.result()
                return content
        if isinstance(error, self._distributed.KilledWorker):
            reason = f"workers were killed {error.allowed_failures + 1} times over {_told(arguments[0])}"
            remedy = "memory ran out, or the preprocess script ends its process: the logs of the workers say more"
            raise UserError(reason, stage=STAGE, file=self.address, remedy=remedy) from error
        raise _unfit_error("a worker", error) from error


class _Work:
    """Work as it lies in a worker, made when it is first called. What it keeps in its attributes stays there: to other
    workers it goes as it came."""

    def __init__(self, content: bytes, needs: Needs) -> None:
        self._content, self._needs = content, needs

    def __reduce__(self) -> tuple[type[_Work], tuple[bytes, Needs]]:
        return _Work, (self._content, self._needs)

    def __sizeof__(self) -> int:  # Dask asks for it
        return len(self._content)

    @cached_property
    def _work(self) -> Callable[..., Any]:
        from distributed import get_worker

        needs = self._needs  # this worker may have come late
        found = facts(list(needs.digests), needs.samples, needs.marks)
        raise_all(_unfit(get_worker().address, found, needs), stage=STAGE)
        work: Callable[..., Any] = pickle.loads(self._content)
        return work

    def answer(self, arguments: bytes) -> bytes:
        """The outcome of a call (see `shards.answer`)."""
        with _TURN:
            return answer(lambda *values: self._work(*values), arguments)


def _told(items: Sequence[Any]) -> str:
    """Samples in words (see `Pool.map`)."""
    return listing((", ".join(map(str, getattr(item, "sample", item))) for item in items), 5)


# -- what a worker has -------------------------------------------------------------------------------------------------
@cache
def versions() -> dict[str, str]:
    """What results depend on, as this process has it."""
    import cv2
    import dask
    import distributed
    import numpy
    import onnxruntime

    sources = hashlib.blake2b(digest_size=4)
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        sources.update(file.read_bytes())
    packages = {module.__name__: str(module.__version__) for module in (cv2, dask, distributed, numpy, onnxruntime)}
    own = f"{__version__} (sources {sources.hexdigest()})"
    return {"sgs": own, "Python": ".".join(platform.python_version_tuple()[:2]), **packages}


def _differences(theirs: Mapping[str, str], place: str, own: Mapping[str, str], remedy: str) -> list[UserError]:
    """Versions that are not those of the program."""
    return [
        UserError(f"has {name} {version}, here it is {own[name]}", stage=STAGE, node=place, remedy=remedy)
        for name, version in theirs.items()
        if version != own[name]
    ]


@dataclass(frozen=True)
class Needs:
    """What a worker must have: versions, files of these digests (None: the program cannot read it either), samples that
    it can read, and the folders in which the program keeps files, the marks, while it runs."""

    versions: Mapping[str, str]
    digests: Mapping[str, str | None] = field(default_factory=dict)
    samples: Sequence[str] = ()
    marks: Sequence[str] = ()


@dataclass(frozen=True)
class Facts:
    """What a worker has: versions, a digest of each file that it can read, samples that it cannot read, and folders
    that are not those of the program or cannot be written."""

    versions: Mapping[str, str]
    digests: Mapping[str, str | None]
    missing: Sequence[str]
    closed: Sequence[str]


def facts(files: Sequence[str], samples: Sequence[str], marks: Sequence[str]) -> Facts:
    """Of this process, a worker; `marks` are files that the program has made in its folders."""
    missing = [sample for sample in samples if not os.access(sample, os.R_OK)]
    closed = [os.path.dirname(m) for m in marks if not (os.path.exists(m) and os.access(os.path.dirname(m), os.W_OK))]
    return Facts(versions(), {file: _digest(Path(file)) for file in files}, missing, closed)


def _digest(file: Path) -> str | None:
    try:
        return hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
    except OSError:
        return None


def _modules(script: Path) -> list[Path]:
    """What a script may import from its folder; nothing where it is no script."""
    if script.suffix != ".py":
        return []
    folder = (script.resolve() if script.is_symlink() else script).parent  # as user_script.py has it, by shared paths
    packages = [package.parent for package in folder.glob("*/__init__.py")]
    return sorted([*folder.glob("*.py"), *(module for package in packages for module in package.rglob("*.py"))])


def _unfit(worker: str, found: Any, needs: Needs) -> list[UserError]:
    """What is wrong with a worker that gave these `facts`, or an error."""
    if isinstance(found, Exception):
        return [_unfit_error(worker, found)]
    lacking = [*(file for file, digest in found.digests.items() if digest is None), *found.missing]
    other = [file for file, digest in found.digests.items() if digest not in (None, needs.digests[file])]
    problems = _differences(found.versions, worker, needs.versions, INSTALL)
    for what, paths in (("cannot read", lacking), ("has another", other), ("cannot write into", found.closed)):
        if paths:
            problems.append(UserError(f"{what} {listing(paths, 5)}", stage=STAGE, node=worker, remedy=SHARE))
    return problems


def _unfit_error(worker: str, error: Exception) -> UserError:
    """What an error of a worker means, other than of the work."""
    module = re.search(r"No module named '([\w.]+)'", str(error))  # Dask passes the error on as text
    if module is not None:
        return UserError(f"has no Python module {module[1]}", stage=STAGE, node=worker, remedy=INSTALL)
    return UserError(f"failed: {error!r}", stage=STAGE, node=worker, remedy="its log says more")


# -- reaching the scheduler --------------------------------------------------------------------------------------------
def find_distributed() -> ModuleType:
    """The package. Raises UserError where it is not installed."""
    try:
        return importlib.import_module("distributed")
    except ModuleNotFoundError as error:
        reason, remedy = f"needs the Python package {error.name}", "pip install distributed"
        raise UserError(reason, stage="--scheduler", remedy=remedy) from error


def _check_address(address: str) -> None:
    """Raise UserError for an address that is none, TLS that is not set up, and where no Dask process answers in time:
    Dask itself would wait without end for an answer that does not come."""
    from distributed.comm import connect
    from distributed.comm.addressing import parse_address, parse_host_port
    from distributed.security import Security

    try:
        scheme, place = parse_address(address)
        host, port = parse_host_port(place)
        if scheme not in ("tcp", "tls") or not host.strip() or not 0 < port < 1 << 16:
            raise ValueError("the scheme is tcp or tls, the port a number below 65536")
    except ValueError as error:
        reason = f"'{address}' is not the address of a Dask scheduler: {error}"
        raise UserError(reason, stage="--scheduler", remedy="write it like tcp://192.168.1.5:8786") from error
    arguments = Security().get_connection_args("client")
    if scheme == "tls" and arguments.get("ssl_context") is None:
        remedy = "set distributed.comm.tls in Dask's configuration"
        raise UserError("there are no certificates for TLS", stage="--scheduler", file=address, remedy=remedy)

    async def shake_hands() -> None:
        comm = await asyncio.wait_for(connect(address, timeout=CONNECT / 2, **arguments), CONNECT)
        comm.abort()

    try:
        socket.create_connection((host, port), CONNECT).close()  # says at once, and better, what is wrong
        asyncio.run(shake_hands())
    except (OSError, asyncio.TimeoutError) as error:
        raise _unreachable(address, getattr(error, "strerror", None) or "no answer in time") from error


def _unreachable(address: str, cause: str) -> UserError:
    remedy = "start one: dask scheduler; it prints its address"
    return UserError(f"no Dask scheduler answers: {cause}", stage=STAGE, file=address, remedy=remedy)
