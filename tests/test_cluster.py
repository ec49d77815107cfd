"""--scheduler: a Dask cluster of separate processes gives what this machine gives, loses workers, and refuses."""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import shipped
from conventions import ROOT
from sgs import __version__
from sgs.cli import calibrator_tool, scheduler, sgs_converter, simulator_tool
from sgs.cli.options import start_log
from sgs.data import cluster as clusters
from sgs.data.cluster import Cluster
from sgs.errors import UserError
from shipped import CALIBRATION, CHIP, INI, LABELS, SCRIPT, SOURCE, TEST, converted

distributed = pytest.importorskip("distributed")
# The scheduler's threads, which are in this process, outlive tests, and with them the streams that Dask would log to.
for name in ("distributed", "distributed.client"):
    logging.getLogger(name).handlers = [logging.NullHandler()]

ALLOWED_FAILURES = 1
MEANT = sorted(CALIBRATION.glob("*.png"))[4]  # the picture that goes wrong
FAULTY = """import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("plain", {plain!r})
plain = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plain)

def image_preprocess(path, norm=True):
    if os.path.basename(path) == {meant!r} and os.getpid() != {program}:
        {fault}
    return plain.image_preprocess(path, norm)
"""


@pytest.fixture(scope="module")
def two() -> Iterator[distributed.LocalCluster]:
    """A scheduler, in this process, of two workers with two threads each, processes of their own."""
    import dask

    settings = {"distributed.scheduler.allowed-failures": ALLOWED_FAILURES}
    path = os.pathsep.join(sys.path)  # workers are programs of their own: they find the library as this one does
    with pytest.MonkeyPatch.context() as patch, dask.config.set(settings):
        patch.setenv("PYTHONPATH", path)
        with distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=2,
            processes=True,
            dashboard_address=":0",
            memory_limit="2GiB",
            silence_logs=50,
        ) as cluster:
            yield cluster


@pytest.fixture
def address(two: distributed.LocalCluster) -> str:
    """Of the scheduler, once workers that an earlier test lost are there again."""
    two.wait_for_workers(2)
    return str(two.scheduler_address)


def faulty(folder: Path, fault: str) -> Path:
    """A preprocess script that does something else with one picture, in processes that are not this one."""
    script = folder / "预 处理.py"
    text = FAULTY.format(plain=str(SCRIPT), meant=MEANT.name, program=os.getpid(), fault=fault)
    script.write_text(text, encoding="utf-8")
    return script


def calibrate(output: Path, *options: object, script: Path = SCRIPT) -> int:
    arguments = ["-m", converted() / "digits_float.sim", "--input_config", INI, "--soc_version", CHIP, "-n", script]
    arguments += ["-i", shipped.sample_list(output.parent, CALIBRATION, 11), "-o", output, *options]
    return calibrator_tool.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The fixed .sim that the processes of this machine make."""
    target = tmp_path_factory.mktemp("local") / "fixed.sim"
    assert calibrate(target, "--quant_level", "L2") == 0
    return target.read_bytes()


def held(address: str) -> list[int]:
    """How many results each worker, and how many tasks the scheduler, still has."""
    with distributed.Client(address, set_as_default=False) as client:
        tasks: int = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
        return [*client.run(lambda dask_worker: len(dask_worker.data)).values(), tasks]


# -- calibration -------------------------------------------------------------------------------------------------------
def test_calibration_equals_that_of_this_machine(
    address: str, local: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths are relative to a folder that is not that of the workers."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "图 片").symlink_to(CALIBRATION)
    names = sorted(path.name for path in CALIBRATION.glob("*.png"))[:11]
    Path("list.txt").write_text("".join(f"图 片/{name}\n" for name in names), encoding="utf-8")
    assert calibrate(Path("fixed.sim"), "--quant_level", "L2", "-i", "list.txt", "--scheduler", address) == 0
    assert Path("fixed.sim").read_bytes() == local
    assert set(held(address)) == {0}


def test_the_converter_calibrates_on_a_cluster(address: str, tmp_path: Path) -> None:
    options = ["-i", str(shipped.sample_list(tmp_path, CALIBRATION, 8)), "-n", str(SCRIPT), "--quant_level", "L2"]
    options += ["--output_file", str(tmp_path / "digits.img"), "--scheduler", address.removeprefix("tcp://")]
    assert sgs_converter.main(["onnx", *SOURCE, *options]) == 0
    assert (tmp_path / "digits.img").read_bytes() == (converted() / "digits.img").read_bytes()


def test_a_lost_worker_changes_nothing(address: str, local: bytes, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    fault = f"if not os.path.exists({str(mark)!r}): open({str(mark)!r}, 'w').close(); os._exit(9)"
    target = tmp_path / "fixed.sim"
    assert calibrate(target, "--quant_level", "L2", "--scheduler", address, script=faulty(tmp_path, fault)) == 0
    assert mark.exists() and target.read_bytes() == local


def test_samples_that_kill_workers_are_named(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = faulty(tmp_path, "os._exit(9)")
    assert calibrate(tmp_path / "fixed.sim", "--scheduler", address, script=script) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert f"workers were killed {ALLOWED_FAILURES + 1} times over " in line and str(MEANT) in line
    assert line.count(".png") == 2, "the share of two pictures, one for each thread of a worker"
    assert not (tmp_path / "fixed.sim").exists()
    options = ["-m", converted() / "digits.img", "-n", script, "-i", MEANT, "--output", tmp_path]
    assert simulator_tool.main([*map(str, options), "--scheduler", address]) == 2
    assert f" times over {MEANT} (memory ran out, or" in capsys.readouterr().err


def test_an_error_of_the_script_reads_as_on_this_machine(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = tmp_path / "count"
    script = faulty(tmp_path, f"open({str(count)!r}, 'a').write('x'); raise KeyError('no such')")
    assert calibrate(tmp_path / "fixed.sim", "--scheduler", address, script=script) == 2
    told = capsys.readouterr().err
    line = f"error: preprocess: {script}: line 8: image_preprocess('{MEANT}', norm=True) raised KeyError: 'no such'\n"
    assert told == line
    assert count.read_text() == "x", "it is not tried again"


# -- simulation --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("model", ["digits_float.sim", "digits_fixed.sim", "digits.img"])
def test_simulation_equals_that_of_this_machine(
    model: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["-m", os.path.relpath(converted() / model, tmp_path), "-n", os.path.relpath(SCRIPT, tmp_path)]
    options += ["-i", shipped.sample_list(tmp_path, TEST, 9).name, "-c", "Classification", "-l", str(LABELS)]
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    told = []
    for folder, more in (("here", []), ("there", ["--scheduler", address])):
        Path(folder).mkdir()
        drawn = ["--output", folder, "--draw_result", folder, "--dump_rawdata"]
        assert simulator_tool.main([*options, *drawn, *more]) == 0
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        told.append((capsys.readouterr().out.replace(folder, "."), files))
    assert told[0] == told[1]
    assert len(told[0][1]) == 27 and "top-1: 9 of 9" in told[0][0]
    assert set(held(address)) == {0}


# -- what is refused ---------------------------------------------------------------------------------------------------
def test_workers_are_checked(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is wrong with every worker is told at once."""
    gone, folder = tmp_path / "gone.png", tmp_path / "out"
    folder.mkdir()
    with Cluster(address) as cluster:
        assert (len(cluster), cluster.threads, cluster.sharing) == (2, 2, 2)
        cluster.check([SCRIPT], [(MEANT,)] * 5000, [folder])
        monkeypatch.setattr(clusters, "_digest", lambda file: "other")
        monkeypatch.setattr(clusters, "versions", lambda: {**clusters_versions, "numpy": "1.0", "sgs": "0"})
        with pytest.raises(UserError) as caught:
            cluster.check([SCRIPT, gone], [(gone,)])
    told = caught.value.render()
    assert told.count("has numpy") == told.count(", here it is 1.0") == 2
    assert told.count(f"has sgs {__version__} (sources ") == 2 and "PYTHONPATH=" in told
    assert told.count(f"cannot read {gone}, {gone}") == told.count(f"has another {SCRIPT}") == 2
    assert list(folder.iterdir()) == [], "the marks are gone"


clusters_versions = clusters.versions()


def test_folders_of_other_machines_are_told_apart(tmp_path: Path) -> None:
    """A folder of the same name where the mark of the program is not."""
    found = clusters.facts([], [], [str(tmp_path / ".sgs_x")])
    assert found.closed == [str(tmp_path)]
    (problem,) = clusters._unfit("tcp://w:1", found, clusters.Needs(clusters_versions))
    assert problem.render().startswith(f"cluster: tcp://w:1: cannot write into {tmp_path} (")


def test_a_worker_that_comes_late_is_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For all that the others were checked for, with the same words."""
    monkeypatch.setattr(distributed, "get_worker", lambda: SimpleNamespace(address="tcp://late:1"))
    script, gone = tmp_path / "a.py", tmp_path / "gone.png"
    script.write_text("pass")
    needs = clusters.Needs(
        {**clusters_versions, "onnxruntime": "9"}, {str(script): "0"}, [str(gone)], [str(tmp_path / ".sgs_x")]
    )
    with pytest.raises(UserError) as caught:
        clusters.opened(clusters._Work(pickle.dumps(len), needs).answer(pickle.dumps(([1],))))
    told = caught.value.render()
    assert told.count("- tcp://late:1: ") == 4
    assert ", here it is 9 (start the workers in" in told and f"cannot read {gone} (" in told
    assert f"has another {script} (" in told and f"cannot write into {tmp_path} (" in told
    work = clusters._Work(pickle.dumps(len), clusters.Needs(clusters_versions))
    assert clusters.opened(pickle.loads(pickle.dumps(work)).answer(pickle.dumps(([1, 2],)))) == 2
    assert sys.getsizeof(clusters._Work(bytes(10000), needs)) > 10000, "what Dask counts"


@pytest.fixture
def lone(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[distributed.LocalCluster, Cluster]]:
    """A scheduler of one worker, both in this process."""
    monkeypatch.setattr(clusters, "CONNECT", 4.0)  # also how long a scheduler that is lost is looked for
    settings = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "protocol": "tcp://"}
    with (
        distributed.LocalCluster(**settings, dashboard_address=":0", silence_logs=50) as whole,
        Cluster(whole.scheduler_address) as cluster,
    ):
        yield whole, cluster


@pytest.mark.parametrize(("lost", "expected"), [(True, "connection to the scheduler was lost"), (False, "have gone")])
def test_what_does_not_come_back(
    lost: bool,
    expected: str,
    lone: tuple[distributed.LocalCluster, Cluster],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, cluster = lone
    monkeypatch.setattr(clusters, "ABSENCE", 1.0)
    monkeypatch.setattr(clusters, "GLANCE", 0.1)
    results = cluster.map(len, [([1],), ([1, 2],), ([1, 2, 3],)])
    assert next(results) == (0, 1)
    whole.close() if lost else whole.scale(0)
    with pytest.raises(UserError, match=f"cluster: tcp://.*{expected}"):
        for _ in results:
            clusters.time.sleep(1.0)  # a result may have come before the end


def test_a_worker_comes(lone: tuple[distributed.LocalCluster, Cluster], monkeypatch: pytest.MonkeyPatch) -> None:
    """While another is busy."""
    whole, cluster = lone
    results = cluster.map(len, [([1] * k,) for k in range(8)])
    assert next(results) == (0, 0)
    whole.scale(2)
    whole.wait_for_workers(2)
    assert sorted(results) == [(k, k) for k in range(1, 8)]
    assert len(cluster) == 2


@pytest.mark.parametrize("changed", ["letterbox.py", "parts/resize.py", "scripts/preprocess.py"])
def test_a_worker_comes_to_other_files(
    changed: str, lone: tuple[distributed.LocalCluster, Cluster], tmp_path: Path
) -> None:
    """Modules beside the script, and in packages there, count as the script does; what lies elsewhere does not."""
    whole, cluster = lone
    script = tmp_path / "scripts/preprocess.py"
    for name in ("parts/__init__.py", "parts/resize.py", "letterbox.py", "preprocess.py", "other/text.py", "notes.txt"):
        file = script.parent / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("0")
    script = script.rename(tmp_path / "scripts/plain.py") if changed != "scripts/preprocess.py" else script
    cluster.check([script], [(script,)], [tmp_path])
    digests = {Path(file).name for file in cluster._needs.digests}
    assert digests - {"preprocess.py", "plain.py"} == {"__init__.py", "resize.py", "letterbox.py"}
    assert [path.name[:5] for path in tmp_path.glob(".*")] == [".sgs_"], "while the program runs"
    results = cluster.map(len, [([1] * k,) for k in range(40)])
    assert next(results) == (0, 0)
    target = script.parent / changed if "scripts" not in changed else script
    target.write_text("1")
    whole.scale(2)
    whole.wait_for_workers(2)
    with pytest.raises(UserError, match=rf"cluster: tcp://\S+: has another {target} \(workers use the same files"):
        list(results)


@pytest.mark.parametrize(("options", "during"), [([], logging.CRITICAL), (["--show_log"], logging.INFO)])
def test_what_dask_says_is_shown_with_show_log(
    options: list[str], during: int, lone: tuple[distributed.LocalCluster, Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = lone
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    for logger, level in zip(loggers, (logging.INFO, logging.WARNING), strict=True):
        monkeypatch.setattr(logger, "level", level)
        logger.manager._clear_cache()
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [*root.handlers])
    monkeypatch.setattr(root, "level", root.level)
    start_log(argparse.Namespace(show_log="--show_log" in options, verbose=0))
    with scheduler.cluster_at(str(whole.scheduler_address), [], [(SCRIPT,)]):
        assert loggers[0].getEffectiveLevel() == during and logging.getLogger("distributed.core").isEnabledFor(during)
        assert loggers[1].isEnabledFor(logging.ERROR) == bool(options)
    assert [logger.level for logger in loggers] == [logging.INFO, logging.WARNING]


STRANGER = """import os, sys
sys.path[:] = [folder for folder in sys.path if not os.path.isdir(os.path.join(folder, "sgs"))]
sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in repr(finder)]
from distributed.cli.dask_worker import main
main(["--no-nanny", "--no-dashboard", "--nthreads", "1", "--death-timeout", "60", sys.argv[1]])
"""


def test_workers_without_the_toolchain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And before there are any."""
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0", processes=True, silence_logs=50) as empty:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clusters, "JOIN", 0.5)
            assert calibrate(tmp_path / "fixed.sim", "--scheduler", empty.scheduler_address) == 2
            assert "has no workers (start some: dask worker tcp://" in capsys.readouterr().err
        worker = subprocess.Popen(
            [sys.executable, "-c", STRANGER, empty.scheduler_address], stderr=subprocess.DEVNULL, cwd=tmp_path
        )
        try:
            assert calibrate(tmp_path / "fixed.sim", "--scheduler", empty.scheduler_address) == 2
            told = capsys.readouterr().err
            assert "has no Python module sgs (start the workers in an environment with this toolchain" in told
        finally:
            worker.kill()
            worker.wait()


def test_a_scheduler_of_another_version(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "versions", lambda: {**clusters_versions, "distributed": "2020.1.0"})
    with pytest.raises(UserError, match=r"cluster: tcp.*has distributed 20.*, here it is 2020.1.0 \(install the same"):
        Cluster(address)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("nowhere", "'nowhere' is not the address of a Dask scheduler: missing port"),
        ("127.0.0.1:port", "write it like tcp://"),
        ("127.0.0.1:99999", "the port a number below 65536"),
        (":8786", "is not the address"),
        ("http://127.0.0.1:8787", "the scheme is tcp or tls"),
        ("tls://127.0.0.1:8786", "there are no certificates for TLS"),
        ("127.0.0.1:{closed}", "no Dask scheduler answers: Connection refused (start one: dask scheduler"),
        ("127.0.0.1:{silent}", "no Dask scheduler answers: no answer in time"),
        ("no-such-host.invalid:8786", "no Dask scheduler answers: "),
    ],
)
def test_addresses(address: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "CONNECT", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as other:
        closed = other.getsockname()[1]
        other.close()
        with pytest.raises(UserError) as caught:
            Cluster(address.format(silent=silent.getsockname()[1], closed=closed))
    assert expected in caught.value.render()


def test_options_that_do_not_go_together(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate(tmp_path / "fixed.sim", "--scheduler", address, "--num_process", "10") == 2
    assert "--num_process: not allowed with argument --scheduler" in capsys.readouterr().err
    kept = tmp_path / "kept.npz"
    assert calibrate(tmp_path / "a.sim", "--quant_level", "L1", "--statistics", kept) == 0
    capsys.readouterr()
    assert calibrate(tmp_path / "b.sim", "--quant_level", "L1", "--statistics", kept, "--scheduler", "127.0.0.1:1") == 0
    assert "so the cluster has nothing to do" in capsys.readouterr().err


def test_without_distributed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert calibrate(tmp_path / "fixed.sim", "--scheduler", "127.0.0.1:8786") == 2
    told = capsys.readouterr().err
    assert told == "error: --scheduler: needs the Python package distributed (pip install distributed)\n"


def test_distributed_is_imported_where_it_is_used_only() -> None:
    code = "import sys, sgs.cli.calibrator_tool, sgs.cli.simulator_tool; sys.exit('distributed' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "Scripts")}
    assert subprocess.run([sys.executable, "-c", code], env=environment, timeout=120).returncode == 0
