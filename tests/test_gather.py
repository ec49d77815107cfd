"""Statistics over lists of files: processes, interrupted runs, files of statistics, and the programs' options."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pytest

import shipped
from conventions import ROOT
from sgs.builder import GraphBuilder
from sgs.cli import calibrator_tool, sgs_converter
from sgs.config.input_config import InputConfig, parse_input_config
from sgs.data import shards
from sgs.data.images import Sample
from sgs.data.preprocess import Preprocessor
from sgs.data.shards import Workers, map_shares, map_threads
from sgs.errors import UserError
from sgs.ir import Graph
from sgs.ops._window import window_node
from sgs.quant import gather as gathering
from sgs.quant import observe, statistics_file
from sgs.quant.gather import FloatFeeds, gather, loading_processes
from sgs.quant.prepare import prepare
from sgs.quant.statistics import Statistics
from sgs.quant.statistics_file import (
    Checkpoint,
    Origin,
    fitting_statistics,
    load_statistics,
    network_hash,
    save_statistics,
)
from sgs.sim import read_sim
from shipped import CALIBRATION, CHIP, INI, MODEL, SCRIPT, converted

HISTOGRAMS = ["x", "s", "y"]
LOADER = """import os, signal, time
import numpy as np

def image_preprocess(path, norm=True):
    {fault}
    with open({log!r}, "a") as file:
        file.write(os.path.basename(path) + "\\n")
    return np.load(path)
"""


def network(channels: int = 5) -> Graph:
    """conv → SiLU → depthwise."""
    rng = np.random.default_rng(channels)
    build = GraphBuilder()
    x = build.input("x", (1, 9, 8, 3))
    weight = rng.normal(0, 0.5, (channels, 3, 3, 3)).astype(np.float32)
    a = build("CONV_2D", x, weight, np.zeros(channels, np.float32), output="a", **window_node(pads=(1, 1, 1, 1)))
    s = build("MUL", a, build("LOGISTIC", a), activation="NONE", output="s")
    weight = rng.normal(0, 0.5, (1, 3, 3, channels)).astype(np.float32)
    bias = np.ones(channels, np.float32)
    return build.output(build("DEPTHWISE_CONV_2D", s, weight, bias, output="y", **window_node()))


class Job:
    """A folder with pictures, a script that logs what it loads, and what `gather` wants."""

    def __init__(self, folder: Path, count: int = 7, fault: str = "pass") -> None:
        self.folder, self.graph = folder, network()
        self.log = folder / "log.txt"
        self.script = folder / "script.py"
        self.write_script(fault)
        rng = np.random.default_rng(count)
        for k in range(count):
            np.save(folder / f"{k}.npy", rng.normal(0, 1 + k, (1, 9, 8, 3)).astype(np.float32))
        self.samples: list[Sample] = [(folder / f"{k}.npy",) for k in range(count)]
        text = (
            "[INPUT_CONFIG]\ninputs=x;\ntraining_input_formats=RAWDATA_F32_NHWC;\ninput_formats=RAWDATA_F32_NHWC;\n"
            "[OUTPUT_CONFIG]\noutputs=y;\ndequantizations=TRUE;\n"
        )
        self.config: InputConfig = parse_input_config(text, folder / "input_config.ini")

    def write_script(self, fault: str) -> None:
        self.script.write_text(LOADER.format(fault=fault, log=str(self.log)), encoding="utf-8")
        self.preprocessors = (Preprocessor(self.script),)

    @property
    def feeds(self) -> FloatFeeds:
        return FloatFeeds(self.config, self.preprocessors, {"x": self.graph["x"]})

    def origin(self) -> Origin:
        return Origin.of(self.graph, self.config, self.preprocessors, self.samples)

    def run(self, histograms: Sequence[str] = HISTOGRAMS, **options: object) -> Statistics:
        return gather(self.graph, self.feeds, self.samples, histograms, **options)  # type: ignore[arg-type]

    def loaded(self) -> list[str]:
        """Pictures loaded since the last call."""
        names = self.log.read_text(encoding="utf-8").split() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return names


def equal(left: Statistics, right: Statistics) -> bool:
    assert (left.samples, list(left.tensors)) == (right.samples, list(right.tensors))
    for name, tensor in left.tensors.items():
        other = right.tensors[name]
        pairs = ((tensor.low, other.low), (tensor.high, other.high), (tensor.counts, other.counts))
        if not all(np.array_equal(a, b) if a is not None and b is not None else a is b for a, b in pairs):
            return False
    return True


# -- processes ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Job(tmp_path_factory.mktemp("job"))


@pytest.mark.parametrize(("processes", "seed"), [(1, 1), (1, 2), (2, None), (3, 1), (3, 2)])
def test_processes_and_order_change_nothing(
    processes: int, seed: int | None, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "processors", lambda: 4)
    whole = job.run()
    assert whole.samples == 7 and whole.tensors["y"].counts is not None
    assert whole.tensors["y"].counts.sum() == 7 * 7 * 6 * 5
    order = range(7) if seed is None else np.random.default_rng(seed).permutation(7)
    samples = [job.samples[k] for k in order]
    seen: list[tuple[str, int, set[Sample]]] = []

    def shown(items: Iterable[Sample], title: str) -> Iterable[Sample]:
        listed = list(items)
        seen.append((title, len(items), set(listed)))  # type: ignore[arg-type]
        return listed

    found = gather(job.graph, job.feeds, samples, HISTOGRAMS, processes=processes, wrap=shown)
    assert equal(found, whole)
    assert seen == [(title, 7, set(samples)) for title in ("calibrate 1/2: ranges", "calibrate 2/2: histograms")]


def test_memory_saving_changes_nothing(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "CODE_BYTES", 500)  # the network in parts
    assert equal(job.run(one_at_a_time=True, processes=5), job.run())


def test_pictures_that_fill_the_memory_are_looked_at_in_turn(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "LANE_BYTES", 1)
    monkeypatch.setattr(gathering, "Workers", None)  # cannot be called: one picture at a time is for one process
    assert equal(job.run(processes=3), job.run())


@pytest.mark.parametrize(
    ("threads", "sharing", "each", "lanes"),
    [(4, 1, 1, 4), (8, 1, 1, 6), (4, 2, 1, 3), (4, 2, 2, 2), (1, 8, 1, 1), (2, 1, 4, 1)],
)
def test_pictures_at_a_time_of_a_worker(
    threads: int, sharing: int, each: int, lanes: int, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it has threads for, and as the machine has memory for: for six of them here, whoever looks at them."""
    monkeypatch.setattr(observe, "LANE_BYTES", 6 * observe.live_bytes(job.graph))
    with Workers(1) as pool:
        pool.threads, pool.sharing = threads, sharing
        assert gathering.lanes_of(pool, job.graph, each) == lanes


def test_processes_are_for_slow_scripts(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "processors", lambda: 4)

    def processes(asked: int, seconds: float, samples: int) -> int:
        ticks = count()
        monkeypatch.setattr(gathering.time, "perf_counter", lambda: next(ticks) * seconds)  # each look at the clock
        return loading_processes(asked, job.feeds, job.samples * samples)

    assert len(job.samples) == 7
    assert processes(10, 0.01, 1) == 1
    assert processes(10, 0.1, 15) == 3  # 10.5 seconds
    assert [processes(asked, 0.1, 1000) for asked in (1, 3, 10)] == [1, 3, 4]


PROGRAM = """import sys
sys.path[:0] = {path!r}
print("program", flush=True)
from pathlib import Path
from test_gather import Job
from sgs.quant import gather
gather.processors = lambda: 2
job = Job(Path({folder!r}), fault={fault!r})
print(job.run(processes=2).samples, "samples", flush=True)
"""
SOURCES = [str(ROOT / part) for part in ("tests", "Scripts")]


def program(folder: Path, fault: str = "pass") -> subprocess.Popen[str]:
    """A user's program without `if __name__ == "__main__"`, in a session of its own. It hears Ctrl-C, which shells let
    their background jobs ignore."""
    folder.mkdir()
    file = folder / "program.py"
    file.write_text(PROGRAM.format(path=SOURCES, folder=str(folder), fault=fault), encoding="utf-8")
    command, pipe = [sys.executable, str(file)], subprocess.PIPE
    hear = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, start_new_session=True, cwd=folder, preexec_fn=hear
    )


def test_a_program_without_guard_runs_once(tmp_path: Path) -> None:
    output, errors = program(tmp_path / "p").communicate(timeout=120)
    assert (output.splitlines(), errors) == (["program", "7 samples"], "")


def workers_of(log: Path, count: int) -> list[int]:
    """Process numbers that the script of `count` workers has logged."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        numbers = {int(word) for word in log.read_text().split()} if log.exists() else set()
        if len(numbers) == count:
            return sorted(numbers)
        time.sleep(0.05)
    raise TimeoutError(f"{count} workers did not start")


def gone(number: int) -> bool:
    """Whether a process has ended."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{number}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_program_that_started_them(how: signal.Signals, tmp_path: Path) -> None:
    """By Ctrl-C at once; when it is killed, as soon as they come up from their sample."""
    log = tmp_path / "workers.txt"
    seconds = 600 if how == signal.SIGINT else 2
    fault = f"open({str(log)!r}, 'a').write(f'{{os.getpid()}} '); time.sleep({seconds})"
    running = program(tmp_path / "p", fault)
    numbers = workers_of(log, 2)
    assert running.pid not in numbers
    running.send_signal(how)
    running.communicate(timeout=200)
    end = time.monotonic() + 200
    while not all(map(gone, numbers)) and time.monotonic() < end:
        time.sleep(0.05)
    assert all(map(gone, numbers))


def half(number: int) -> float:
    """Work for processes: refuses odd numbers, ends the process at 13."""
    if number == 13:
        os._exit(1)
    if number % 2:
        raise UserError("is odd", stage="halving", node=str(number), remedy="take an even one")
    return number / 2


class Unlucky(Exception):
    """An exception that cannot be pickled."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} and {right}")


def unlucky(number: int) -> None:
    raise Unlucky(number, 7)


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work must be importable: pytest runs this module under its own name, which is in sys.path."""
    monkeypatch.setattr(sys, "path", [*SOURCES, *sys.path])


@pytest.mark.usefixtures("importable")
def test_workers_serve_one_work_after_the_other() -> None:
    with Workers(2) as workers:
        assert len(workers) == 2
        assert sorted(workers.map(half, [(number,) for number in range(0, 20, 2)])) == [(k, k) for k in range(10)]
        assert sorted(workers.map(abs, [(-1,)])) == [(0, 1)]
        assert list(workers.map(abs, [])) == []
        with pytest.raises(UserError, match=r"halving: 7: is odd \(take an even one\)"):
            list(workers.map(half, [(7,)]))
        with pytest.raises(RuntimeError, match=r"Unlucky\('5 and 7'\)") as caught:
            list(workers.map(unlucky, [(5,)]))
        assert "in unlucky" in str(caught.value.__cause__)
        assert list(workers.map(half, [(4,)])) == [(0, 2)]
        with pytest.raises(UserError, match="a worker process was killed.*use a smaller --num_process"):
            list(workers.map(half, [(13,)]))


def tagged(numbers: Sequence[int]) -> list[int]:
    return list(numbers)


@pytest.mark.usefixtures("importable")
def test_shares_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARES", 2)
    monkeypatch.setattr(shards, "processors", lambda: 2)
    with Workers(2) as workers:
        assert list(map_shares(workers, tagged, list(range(9)))) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
        assert list(map_shares(workers, tagged, [7])) == [[7]]
        workers.threads = 4
        assert list(map_shares(workers, tagged, list(range(9)))) == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


def test_threads_work_ahead_but_not_far() -> None:
    made: list[int] = []

    def items() -> Iterable[int]:
        for number in range(6):
            made.append(number)
            yield number

    results = map_threads(lambda number: number * number, items(), 2)
    assert next(iter(results)) == 0 and made == [0, 1, 2]
    assert list(results) == [1, 4, 9, 16, 25]
    with pytest.raises(ZeroDivisionError):
        list(map_threads(lambda number: 1 // (number - 2), range(4), 2))


# -- interrupted runs --------------------------------------------------------------------------------------------------
def checkpoint(job: Job, *, resume: bool = False, interval: float = 0.0) -> Checkpoint:
    return Checkpoint(job.folder / "run_partial.npz", job.origin, resume=resume, interval=interval)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(("visit", "broken"), [(1, "extrema"), (2, "histograms")])
def test_a_resumed_run_gives_the_same_and_loads_the_rest_only(
    processes: int, visit: int, broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script raises at the fifth picture, in the first or in the second pass."""
    monkeypatch.setattr(gathering, "processors", lambda: 2)
    fault = f"""
    if "4.npy" in path:
        with open({str(tmp_path / "visits")!r}, "a+") as file:
            file.write("x")
            file.seek(0)
            if len(file.read()) == {visit}:
                raise OSError("the disk is gone")"""
    work = Job(tmp_path, fault=fault)
    with pytest.raises(UserError, match="the disk is gone"):
        work.run(processes=processes, checkpoint=checkpoint(work))
    with np.load(tmp_path / "run_partial.npz") as archive:
        done = archive[f"{broken}_samples"].size
        assert (visit == 1) == ("histograms" not in archive)
    assert 1 <= done <= 6
    work.loaded()
    found = work.run(processes=processes, checkpoint=checkpoint(work, resume=True))
    assert len(work.loaded()) == (14 if visit == 1 else 7) - done
    assert equal(found, work.run())
    assert len(work.loaded()) == 14


def test_a_killed_run_can_be_resumed(tmp_path: Path) -> None:
    """Nothing is run at the end of a killed process: what counts was written before."""
    folder = tmp_path / "job"
    folder.mkdir()
    fault = "if '5.npy' in path and 'SHORT_LIVED' in os.environ: time.sleep(1); os.kill(os.getpid(), signal.SIGKILL)"
    code = f"""
import sys
sys.path[:0] = {SOURCES!r}
from pathlib import Path
from test_gather import Job, checkpoint
work = Job(Path({str(folder)!r}), fault={fault!r})
work.run(checkpoint=checkpoint(work))
"""
    environment = {**os.environ, "SHORT_LIVED": "1"}
    killed = subprocess.run([sys.executable, "-c", code], timeout=120, check=False, env=environment)
    assert killed.returncode == -signal.SIGKILL
    work = Job(folder, fault=fault)
    work.loaded()
    with np.load(folder / "run_partial.npz") as archive:
        done = archive["extrema_samples"].size
    assert 1 <= done <= 5
    found = work.run(checkpoint=checkpoint(work, resume=True))
    assert len(work.loaded()) == 14 - done
    assert equal(found, work.run())


def test_a_run_that_hardly_began_leaves_nothing(tmp_path: Path) -> None:
    work = Job(tmp_path, fault="assert '3.npy' not in path")
    with pytest.raises(UserError, match="AssertionError"):
        work.run(checkpoint=checkpoint(work, interval=60))
    assert not list(tmp_path.glob("*.npz"))


def test_a_finished_pass_is_not_run_again(tmp_path: Path) -> None:
    """A run of a lower level, interrupted after its only pass, serves a higher one."""
    work = Job(tmp_path)
    work.run(histograms=[], checkpoint=checkpoint(work))
    assert len(work.loaded()) == 7
    found = work.run(checkpoint=checkpoint(work, resume=True))
    assert len(work.loaded()) == 7
    assert equal(found, work.run())


def test_histograms_of_other_ranges_are_taken_anew(tmp_path: Path) -> None:
    """Pictures added since the run was interrupted widen the ranges."""
    work = Job(tmp_path)
    every = work.samples
    work.samples = every[:4]
    work.run(checkpoint=checkpoint(work))
    work.samples = every[::-1]
    work.loaded()
    found = work.run(checkpoint=checkpoint(work, resume=True))
    assert len(work.loaded()) == 3 + 7
    assert equal(found, work.run())


def test_a_sample_that_is_listed_twice_counts_twice(tmp_path: Path) -> None:
    work = Job(tmp_path, 3)
    work.samples = [work.samples[k] for k in (0, 1, 0)]
    work.run(checkpoint=checkpoint(work))
    work.samples.append(work.samples[0])
    work.loaded()
    found = work.run(checkpoint=checkpoint(work, resume=True))
    assert work.loaded() == ["0.npy", "0.npy"]  # once in each pass: the bins are still the same
    assert found.samples == 4 and equal(found, work.run())


def test_unfinished_statistics_of_something_else_are_refused(tmp_path: Path) -> None:
    work = Job(tmp_path)
    work.run(checkpoint=checkpoint(work))
    samples = work.samples
    work.samples = samples[:5]
    with pytest.raises(UserError, match="samples that are not among those given.*run without --resume"):
        checkpoint(work, resume=True)
    work.samples = samples
    work.graph = network(6)
    with pytest.raises(UserError, match="run_partial.npz: holds statistics of another network"):
        checkpoint(work, resume=True)
    work.graph = network()
    work.write_script("time.sleep(0)")
    with pytest.raises(UserError, match="holds statistics of another preprocess script"):
        checkpoint(work, resume=True)
    left = tmp_path / "run_partial.npz"
    left.write_bytes(left.read_bytes()[:-40])
    with pytest.raises(UserError, match="is damaged, or holds no unfinished statistics"):
        checkpoint(work, resume=True)


# -- files -------------------------------------------------------------------------------------------------------------
def test_statistics_come_back_from_their_file(tmp_path: Path) -> None:
    work = Job(tmp_path)
    found, prepared = work.run(), prepare(work.graph)
    file, other = tmp_path / "s.npz", tmp_path / "t.npz"
    save_statistics(file, found, work.origin())
    back, origin = load_statistics(file)
    assert equal(back, found) and sorted(origin.samples) == sorted(work.origin().samples)
    assert equal(fitting_statistics(file, work.origin(), prepared, HISTOGRAMS)[0], found)
    work.samples.reverse()
    save_statistics(other, work.run(processes=2), work.origin())
    assert other.read_bytes() == file.read_bytes()
    for index, (path,) in enumerate(work.samples):  # samples are known by what is in them
        path.rename(tmp_path / f"moved{index}.npy")
    work.samples = [(tmp_path / f"moved{index}.npy",) for index in range(7)]
    assert equal(fitting_statistics(file, work.origin(), prepared, HISTOGRAMS)[0], found)


def test_files_that_do_not_fit_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    work = Job(tmp_path)
    file, prepared = tmp_path / "s.npz", prepare(work.graph)
    save_statistics(file, work.run(HISTOGRAMS[:2]), work.origin())
    fit = partial(fitting_statistics, file)
    elsewhere = "name a file that does not exist, to have it written"
    with pytest.raises(UserError, match=rf"s.npz: holds statistics of another network \({elsewhere}\)"):
        fit(replace(work.origin(), network="0"), prepared, [])
    with pytest.raises(UserError, match="holds statistics of another preprocess script, or other inputs"):
        fit(replace(work.origin(), preprocessing="0"), prepared, [])
    with pytest.raises(UserError, match="lacks the statistics of y "):
        fit(work.origin(), prepared, HISTOGRAMS)
    with pytest.raises(UserError, match="lacks the statistics of logistic "):
        fit(work.origin(), work.graph, [])  # what only the graph has that is not prepared
    np.save(tmp_path / "new.npy", np.zeros((1, 9, 8, 3), np.float32))
    samples = work.samples
    work.samples = [*samples[:2], (tmp_path / "new.npy",)]
    with pytest.raises(UserError, match="holds statistics of 7 samples, which lack 1 of those given"):
        fit(work.origin(), prepared, [])
    work.samples = samples[2:4]
    assert fit(work.origin(), prepared, HISTOGRAMS[:2])[0].samples == 7
    assert "s.npz: statistics of 7 samples, 5 more than given" in caplog.text
    for path, reason in ((tmp_path / "none.npz", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError, match=f"cannot be read: {reason}"):
            load_statistics(path)
    with pytest.raises(UserError, match="is damaged, or holds no statistics"):
        load_statistics(work.script)


def test_damaged_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Job(tmp_path, 2)
    file, damaged = tmp_path / "s.npz", tmp_path / "d.npz"
    found = work.run()
    save_statistics(file, found, work.origin())
    whole = file.read_bytes()
    for size in np.linspace(0, len(whole) - 1, 40).astype(int):
        damaged.write_bytes(whole[:size])
        with pytest.raises(UserError, match="is damaged"):
            load_statistics(damaged)
    tensor = found.tensors["y"]
    for changed in (
        {"low": tensor.low * np.float32(np.nan)},
        {"low": tensor.high, "high": tensor.low},
        {"counts": -np.asarray(tensor.counts)},
    ):
        broken = Statistics(2, {**found.tensors, "y": replace(tensor, **changed)})  # type: ignore[arg-type]
        save_statistics(damaged, broken, work.origin())
        with pytest.raises(UserError, match="is damaged: values that statistics cannot have"):
            load_statistics(damaged)
    with np.load(file) as archive:
        arrays = dict(archive)
    for key, array in (("low", arrays["low"][1:]), ("counts", arrays["counts"].astype(np.float32))):
        np.savez(damaged, **{**arrays, key: array})
        with pytest.raises(UserError, match=r"is damaged: float32 \[.* is needed"):
            load_statistics(damaged)
    np.savez(damaged, **{**arrays, "low": np.array([{"a": 1}])})  # a pickle
    with pytest.raises(UserError, match="is damaged"):
        load_statistics(damaged)
    monkeypatch.setattr(statistics_file, "VERSION", 2)
    with pytest.raises(UserError, match="is of version 1, this toolchain reads version 2"):
        load_statistics(file)


def test_a_network_is_known_by_what_it_computes() -> None:
    graph = network()
    same = graph.copy()
    same.name, same.metadata["config"], same.nodes[0].name = "other", "x", "node"
    same.nodes[0].attrs["strides"] = list(same.nodes[0].attrs["strides"])
    assert network_hash(same) == network_hash(graph)
    weights, window, names = graph.copy(), graph.copy(), graph.copy()
    constant = next(tensor for tensor in weights.tensors.values() if tensor.is_constant)
    constant.data = np.asarray(constant.data) * np.float32(1.0001)
    window.nodes[-1].attrs["strides"] = (1, 2)
    names.rename_tensor("s", "t")
    assert len({network_hash(g) for g in (graph, weights, window, names)}) == 4


# -- the programs ------------------------------------------------------------------------------------------------------
class Digits:
    """The shipped classifier with a script that logs what it loads, and fails once at the picture named in `fault`."""

    def __init__(self, folder: Path, count: int = 5) -> None:
        self.folder, self.log = folder, folder / "log.txt"
        self.script = folder / "script.py"
        self.fault = folder / "fault"
        text = SCRIPT.read_text(encoding="utf-8").replace("def image_preprocess", "def shipped")
        text += f"""
def image_preprocess(path, norm=True):
    import os
    if os.path.exists({str(self.fault)!r}) and os.path.basename(path) == open({str(self.fault)!r}).read():
        os.remove({str(self.fault)!r})
        raise OSError("the disk is gone")
    with open({str(self.log)!r}, "a") as file:
        file.write(path + "\\n")
    return shipped(path, norm=norm)
"""
        self.script.write_text(text, encoding="utf-8")
        samples = shipped.sample_list(folder, CALIBRATION, count)
        self.common = ["--input_config", INI, "--soc_version", CHIP, "-i", samples, "-n", self.script]

    def calibrate(self, output: str, level: str, *options: object) -> int:
        source = ["-m", converted() / "digits_float.sim", "-o", self.folder / output, "--quant_level", level]
        return calibrator_tool.main([str(word) for word in (*self.common, *source, *options)])

    def loaded(self) -> int:
        """How many pictures were loaded since the last call."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return len(lines)


def test_statistics_are_written_once_and_serve_every_level(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digits = Digits(tmp_path)
    assert digits.calibrate("plain.sim", "L3") == 0
    plain = digits.loaded()
    file = tmp_path / "s.npz"
    assert digits.calibrate("l1.sim", "L1", "--statistics", file) == 0
    digits.loaded()
    written = file.read_bytes()
    assert digits.calibrate("l3.sim", "L3", "--statistics", file, "--num_process", "2") == 0
    assert digits.loaded() == plain - 1 - 2 * 5  # neither the two passes nor a look at how long loading takes
    assert file.read_bytes() == written
    assert (tmp_path / "l3.sim").read_bytes() == (tmp_path / "plain.sim").read_bytes()
    assert (tmp_path / "l1.sim").read_bytes() != (tmp_path / "plain.sim").read_bytes()
    capsys.readouterr()
    assert digits.calibrate("more.sim", "L1", "--statistics", file, "--resume") == 0
    assert "there is nothing to resume" in capsys.readouterr().err
    (tmp_path / "other.txt").write_text(str(sorted(CALIBRATION.glob("*.png"))[9]), encoding="utf-8")
    assert digits.calibrate("more.sim", "L1", "--statistics", file, "-i", tmp_path / "other.txt") == 2
    told = capsys.readouterr().err
    assert re.search(r"^error: statistics: .*s\.npz: holds statistics of 5 samples, which lack 1 of those given", told)


def test_quant_info_comes_with_the_statistics(tmp_path: Path) -> None:
    digits = Digits(tmp_path)
    assert digits.calibrate("a.sim", "L1", "--save_quant_info") == 0
    assert {"a.sim", "a_quant_info.json", "a_statistics.npz"} <= {path.name for path in tmp_path.iterdir()}
    assert digits.calibrate("b.sim", "L2", "--statistics", tmp_path / "a_statistics.npz", "--save_quant_info") == 0
    assert (tmp_path / "b_statistics.npz").read_bytes() == (tmp_path / "a_statistics.npz").read_bytes()
    statistics, _ = load_statistics(tmp_path / "a_statistics.npz")
    assert statistics.samples == 5


def test_statistics_of_the_one_shot_program_serve_the_calibrator(tmp_path: Path) -> None:
    """The network is the same in memory and in its file."""
    digits = Digits(tmp_path)
    one_shot = ["onnx", "--model_file", MODEL, "--output_file", tmp_path / "d.img", "--quant_level", "L1"]
    file = tmp_path / "s.npz"
    assert sgs_converter.main([str(w) for w in (*one_shot, *digits.common, "--statistics", file)]) == 0
    assert network_hash(read_sim(converted() / "digits_float.sim").graph) == load_statistics(file)[1].network
    digits.loaded()
    assert digits.calibrate("d.sim", "L1", "--statistics", file) == 0
    assert digits.loaded() == 2 + 5  # a look at mean and std, and those kept for judging


@pytest.mark.parametrize("memory_saving", [False, True])
def test_an_interrupted_program_resumes(
    memory_saving: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digits = Digits(tmp_path, 9)
    options = ["--memory_saving"] if memory_saving else []
    assert digits.calibrate("plain.sim", "L1", *options) == 0
    assert not (tmp_path / "plain_partial.npz").exists()
    monkeypatch.setattr(statistics_file, "INTERVAL", 0.0)
    digits.fault.write_text(sorted(CALIBRATION.glob("*.png"))[7].name, encoding="utf-8")
    assert digits.calibrate("out.sim", "L1", *options) == 2
    assert "the disk is gone" in capsys.readouterr().err
    left = tmp_path / "out_partial.npz"
    assert left.exists() and not (tmp_path / "out.sim").exists()
    digits.loaded()
    assert digits.calibrate("out.sim", "L1", "--resume", *options) == 0
    resumed = digits.loaded()
    assert not left.exists()
    assert (tmp_path / "out.sim").read_bytes() == (tmp_path / "plain.sim").read_bytes()
    left.write_bytes(b"of another run")  # not looked at without --resume
    assert digits.calibrate("out.sim", "L1", *options) == 0
    assert resumed < digits.loaded() and not left.exists()
    assert digits.calibrate("out.sim", "L1", "--resume") == 0
    assert "there is no" in capsys.readouterr().err
