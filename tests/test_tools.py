"""The programs from end to end on the shipped digit classifier: files, names, results, and the three simulators."""

from __future__ import annotations

import contextlib
import errno
import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import shipped
from sgs import pipelines, products, simulation
from sgs.cli import calibrator_tool, compiler_tool, convert_tool, image_files, sgs_converter
from sgs.data.images import Sample
from sgs.data.preprocess import load_preprocessors
from sgs.engine import FixedEngine
from sgs.errors import UserError
from sgs.evaluate.labels import Labels
from sgs.evaluate.results import classification_text, picture_names, ranked, unknown_text
from sgs.ir import Graph
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.sim import write_sim
from sgs.sim.write import Stage
from sgs.simulation import Port, Simulator
from shipped import CALIBRATION, CHIP, INI, SCRIPT, SOURCE, TEST, converted, launch, simulated

Main = Callable[[Sequence[str]], int]


def ran(main: Main, *arguments: object) -> None:
    """The program ends well with these arguments."""
    assert main([str(argument) for argument in arguments]) == 0


def pictures(count: int) -> list[Path]:
    return sorted(TEST.glob("*.png"))[:count]


# -- the programs ------------------------------------------------------------------------------------------------------
def test_steps_as_programs_write_what_the_one_shot_program_writes(tmp_path: Path) -> None:
    """Launchers in a folder with an awkward name; equal bytes also show that the same inputs give the same files."""
    here = tmp_path / "模 型"
    here.mkdir()
    listed = shipped.sample_list(here, CALIBRATION, 8)
    common = ["--input_config", INI, "--soc_version", "PCUPID"]
    first = launch("Scripts/ConvertTool/ConvertTool.py", "onnx", *SOURCE, "--output_file", "digits_float.sim", cwd=here)
    assert (first.returncode, first.stdout.splitlines()[-1:]) == (0, ["Float model at: digits_float.sim"]), first.stderr
    options = ["-m", "digits_float.sim", "-i", listed.name, "-n", SCRIPT, "--quant_level", "l2", *common]
    second = launch("Scripts/calibrator/calibrator.py", *options, "--num_process", "2", cwd=here)
    assert (second.returncode, second.stdout.splitlines()[-1:]) == (0, ["Fixed model at: digits_fixed.sim"]), (
        second.stderr
    )
    third = launch("Scripts/calibrator/compiler.py", "-m", "digits_fixed.sim", "--soc_version", CHIP, cwd=here)
    assert third.returncode == 0, third.stderr
    assert third.stdout.splitlines()[-1] == "Offline model at: digits_fixed.sim_sgsimg.img"
    assert re.search(r"arena +[\d,]+ bytes, lower bound [\d,]+, gap [\d.]+%", third.stdout)
    assert "latency" in third.stdout and "weights" in third.stdout
    assert not first.stderr + second.stderr + third.stderr
    for staged, at_once in (
        ("digits_float.sim", "digits_float.sim"),
        ("Debug_digits_float.sim", "Debug_digits_float.sim"),
        ("digits_fixed.sim", "digits_fixed.sim"),
        ("digits_fixed.sim_sgsimg.img", "digits.img"),
    ):
        assert (here / staged).read_bytes() == (converted() / at_once).read_bytes(), staged
    made = {
        "digits_float.sim",
        "Debug_digits_float.sim",
        "digits_fixed.sim",
        "digits_fixed.sim_sgsimg.img",
        listed.name,
    }
    assert {path.name for path in here.iterdir()} == made, "and nothing else"


def test_simulator_as_a_program(tmp_path: Path) -> None:
    (tmp_path / "classification_old.txt").write_text("mine")
    options = ["-m", converted() / "digits.img", "-i", pictures(1)[0], "-n", SCRIPT, "-c", "Classification"]
    done = launch("Scripts/calibrator/simulator.py", *options, "--soc_version", CHIP, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert done.stdout.startswith("digit_000.png: 7 (")
    result = (tmp_path / "classification_digits.img_digit_000.png.txt").read_text()
    assert re.fullmatch(r"digit_000\.png\n7 \d+\.\d{6}\n(\d -?\d+\.\d{6}\n){4}", result)
    assert (tmp_path / "classification_old.txt").read_text() == "mine"


def test_one_shot_without_export_keeps_nothing_else(tmp_path: Path) -> None:
    options = ["-i", pictures(1)[0], "-n", SCRIPT, "--quant_level", "L1", "-b", "2", "--batch_mode", "one_buf"]
    ran(sgs_converter.main, "onnx", *SOURCE, *options, "-c", "Classification", "--output_file", tmp_path / "a.img")
    assert [path.name for path in tmp_path.iterdir()] == ["a.img"]
    image = Simulator(tmp_path / "a.img").image
    assert image is not None
    assert (image.category, image.batches, image.batch_mode.name) == ("Classification", (2,), "ONE_BUF")


def test_a_failing_last_file_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object, **keywords: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def but_float(graph: Graph, path: Path, *, stage: Stage) -> None:
        (full if stage == "float" else write_sim)(graph, path, stage=stage)

    monkeypatch.setattr(products, "write_sim", but_float)
    monkeypatch.setattr(image_files, "write_image", full)
    source = [str(argument) for argument in ("onnx", *SOURCE, "--output_file")]
    one_shot = ["-i", str(pictures(1)[0]), "-n", str(SCRIPT), "--quant_level", "L1", "--export_models"]
    assert convert_tool.main([*source, str(tmp_path / "a_float.sim")]) == 2
    assert f"{tmp_path}/a_float.sim: cannot be written: No space left" in capsys.readouterr().err
    assert sgs_converter.main([*source, str(tmp_path / "a.img"), *one_shot]) == 2
    assert f"{tmp_path}/a.img: cannot be written: No space left" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_quant_info_and_category_travel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = ["-i", shipped.sample_list(tmp_path, CALIBRATION, 4), "-n", SCRIPT]
    options = ["-m", converted() / "digits_float.sim", "--input_config", INI, "--soc_version", CHIP, *samples]
    options += ["--quant_level", "L4", "-o", tmp_path, "--save_quant_info", "--memory_saving", "-sth", "0.0001"]
    ran(calibrator_tool.main, *options, "-c", "classification", "--show_log")
    told = capsys.readouterr().out
    assert re.search(r"^  start: outputs at [0-9.]+ dB$", told, re.MULTILINE)
    assert re.search(r"^  16 bit: outputs at \d+\.\d\d dB(, not kept)?$", told, re.MULTILINE)
    record = json.loads((tmp_path / "digits_fixed_quant_info.json").read_text())
    assert record["level"] == "L4" and record["macs"] and record["ranges"] and record["calibration"]["steps"]
    ran(compiler_tool.main, "-m", tmp_path / "digits_fixed.sim", "--soc_version", CHIP)
    image = Simulator(tmp_path / "digits_fixed.sim_sgsimg.img").image
    assert image is not None and image.category == "Classification"


def test_arrays_of_old_scripts_are_compared_with_the_ini(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["onnx", *SOURCE, "--output_file", tmp_path, "--input_arrays", "images", "--output_arrays"]
    ran(convert_tool.main, *options, "logits")
    assert {path.name for path in tmp_path.iterdir()} == {"Converted_Net_float.sim", "Debug_Converted_Net_float.sim"}
    assert convert_tool.main([str(option) for option in [*options, "prob"]]) == 2
    assert "--output_arrays names prob" in capsys.readouterr().err


# -- names -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rule", "model", "output", "expected"),
    [
        (products.fixed_path, "m/x_float.sim", None, "m/x_fixed.sim"),
        (products.fixed_path, "m/x.sim", None, "m/x_fixed.sim"),
        (products.fixed_path, "m/x_float.sim", "folder", "folder/x_fixed.sim"),
        (products.fixed_path, "m/x_float.sim", "folder/y.sim", "folder/y.sim"),
        (products.image_path, "m/x_fixed.sim", None, "m/x_fixed.sim_sgsimg.img"),
        (products.image_path, "m/x_fixed.sim", "folder", "folder/x_fixed.sim_sgsimg.img"),
        (products.image_path, "m/x_fixed.sim", "y.img", "y.img"),
    ],
)
def test_output_names(
    rule: Callable[[Path, str | None], Path],
    model: str,
    output: str | None,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    assert rule(Path(model), output) == Path(expected)


def test_names_around_the_one_shot_image() -> None:
    assert products.exported_paths(Path("a/net.img")) == (
        Path("a/Debug_net_float.sim"),
        Path("a/net_float.sim"),
        Path("a/net_fixed.sim"),
    )
    assert products.quant_info_path(Path("a/x_fixed.sim")) == Path("a/x_fixed_quant_info.json")


def test_pictures_of_one_name_get_results_of_their_own() -> None:
    alone, twins = (Path("d/c.png"),), [(Path("d/a/1.png"),), (Path("d/b/1.png"),)]
    assert picture_names([alone, *twins, alone]) == ["c.png", "a_1.png", "b_1.png", "c.png"]
    assert picture_names([(Path("a.png"), Path("x.npy")), (Path("a.png"), Path("y.npy"))]) == ["a.png", "a.png_2"]


# -- simulators --------------------------------------------------------------------------------------------------------
def outputs(simulator: Simulator, count: int) -> list[Array]:
    samples = [(path,) for path in pictures(count)]
    return [out["logits"] for _, _, out in simulated(simulator, load_preprocessors(str(SCRIPT), 1), samples)]


def test_three_simulators_agree() -> None:
    opened = [Simulator(converted() / name) for name in ("digits_float.sim", "digits_fixed.sim", "digits.img")]
    assert [simulator.kind for simulator in opened] == ["Float", "Fixed", "Offline"]
    truth, fixed, offline = (np.concatenate(outputs(simulator, 24)) for simulator in opened)
    wanted = [shipped.labels()[path.name] for path in pictures(24)]
    assert np.array_equal(truth.argmax(1), wanted)
    assert np.array_equal(fixed.argmax(1), wanted)
    assert np.array_equal(fixed, offline)
    assert float((truth * fixed).sum() / np.sqrt((truth**2).sum() * (fixed**2).sum())) > 0.99
    debug = np.concatenate(outputs(Simulator(converted() / "Debug_digits_float.sim"), 4))
    assert np.abs(debug - truth[:4]).max() < 1e-4


def test_samples_of_a_fixed_model_run_at_a_time_in_order() -> None:
    """As many single runs would give; pictures are loaded while results are taken, not all at the start."""
    path, scripts = converted() / "digits_fixed.sim", load_preprocessors(str(SCRIPT), 1)
    taken: list[Sample] = []

    def samples() -> Iterator[Sample]:
        for picture in pictures(9):
            taken.append((picture,))
            yield (picture,)

    single, together = Simulator(path, threads=1), Simulator(path, threads=2)
    results = simulated(together, scripts, samples())
    for picture in pictures(5):
        sample, feeds, got = next(results)
        assert sample == (picture,)
        alone = single.feeds(scripts, sample)
        assert np.array_equal(feeds["images"], alone["images"])
        assert np.array_equal(got["logits"], single.run(alone)["logits"])
    assert len(taken) < 9
    assert len(list(results)) == 4
    assert not list(simulated(together, scripts, []))


def test_threads_that_run_first_together_share_one_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    simulator, scripts = Simulator(converted() / "digits_fixed.sim", threads=1), load_preprocessors(str(SCRIPT), 1)
    feeds = [simulator.feeds(scripts, (path,)) for path in pictures(2)]
    alone = [simulator.run(fed)["logits"] for fed in feeds]
    fresh, built, both = Simulator(simulator.path, threads=1), [], threading.Barrier(2)

    def build(graph: Graph, *, threads: int) -> FixedEngine:
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.3)  # for another one that builds
        built.append(FixedEngine(graph, threads=threads))
        return built[-1]

    monkeypatch.setattr(simulation, "FixedEngine", build)
    with ThreadPoolExecutor(2) as pool:
        found = [results["logits"] for results in pool.map(fresh.run, feeds)]
    assert len(built) == 1
    assert all(np.array_equal(*pair) for pair in zip(found, alone, strict=True))


def test_results_before_a_sample_at_fault_are_given() -> None:
    samples = [*((path,) for path in pictures(3)), (Path("none.png"),), (pictures(4)[3],)]
    results = simulated(Simulator(converted() / "digits_fixed.sim"), load_preprocessors(str(SCRIPT), 1), samples)
    assert [next(results)[0] for _ in range(3)] == samples[:3]
    with pytest.raises(UserError, match="none.png"):
        next(results)


@pytest.mark.parametrize(
    ("dtype", "values", "got"),
    [
        (DType.UINT8, np.array([0, 256], np.int16), "uint8 holds, got 0..256 (int16)"),
        (DType.UINT8, np.array([-1, 5], np.int16), "uint8 holds, got -1..5 (int16)"),
        (DType.INT32, np.array([0.5, 1], np.float32), "int32 holds, got 0.5..1 (float32)"),
        (DType.INT32, np.array([np.nan], np.float32), "int32 holds, got nan..nan (float32)"),
        (DType.FLOAT32, np.array([1 << 24, (1 << 24) + 1], np.int32), "float32 holds"),
        (DType.INT32, np.array([-7, 300], np.int16), ""),
        (DType.FLOAT32, np.array([np.nan, 2], np.float32), ""),
    ],
)
def test_values_that_do_not_fit_an_input_are_refused(dtype: DType, values: Array, got: str) -> None:
    port = Port("ids", values.shape, dtype, "NHWC")
    if not got:
        fed = simulation._as_fed(port, values, Path("m.sim"))
        assert fed.dtype == dtype.numpy and np.array_equal(fed, values, equal_nan=True)
        return
    with pytest.raises(UserError) as caught:
        simulation._as_fed(port, values, Path("m.sim"))
    assert got in caught.value.render() and "m.sim: input 'ids'" in caught.value.render(), caught.value.render()


def test_channels_first_inputs(tmp_path: Path) -> None:
    """input_layouts=NCHW: scripts and simulators speak NCHW; the answers are those of the NHWC model."""
    ini, script = tmp_path / "nchw.ini", tmp_path / "nchw.py"
    ini.write_text(INI.read_text(encoding="utf-8").replace("mean=", "input_layouts=NCHW;\nmean="), encoding="utf-8")
    turned = "return image[np.newaxis].transpose(0, 3, 1, 2)"
    script.write_text(SCRIPT.read_text(encoding="utf-8").replace("return image[np.newaxis]", turned), encoding="utf-8")
    listed = shipped.sample_list(tmp_path, CALIBRATION, 8)
    options = ["--model_file", shipped.MODEL, "--input_config", ini, "--soc_version", CHIP, "-i", listed, "-n", script]
    options += ["--quant_level", "L2", "--export_models", "--output_file", tmp_path / "digits.img"]
    ran(sgs_converter.main, "onnx", *options)
    for name in ("digits_float.sim", "digits_fixed.sim", "digits.img"):
        simulator = Simulator(tmp_path / name)
        assert (simulator.inputs[0].shape, simulator.inputs[0].layout) == ((1, 3, 64, 64), "NCHW")
        samples = [(path,) for path in pictures(6)]
        got = np.concatenate(
            [out["logits"] for *_, out in simulated(simulator, load_preprocessors(str(script), 1), samples)]
        )
        truth = np.concatenate(outputs(Simulator(converted() / name), 6))
        assert np.abs(got - truth).max() <= (1e-4 if simulator.kind == "Float" else 0.0)


@pytest.mark.parametrize(("mode", "batch", "frames"), [("n_buf", "3", (1, 2, 3)), ("one_buf", "2,4", (2, 4))])
def test_batches(mode: str, batch: str, frames: tuple[int, ...], tmp_path: Path) -> None:
    """Any number up to the largest, or exactly the listed ones: as many single runs would give, bit for bit."""
    options = ["-m", converted() / "digits_fixed.sim", "--soc_version", CHIP]
    ran(compiler_tool.main, *options, "-b", batch, "--batch_mode", mode, "-o", tmp_path / "b.img")
    simulator, fixed = Simulator(tmp_path / "b.img"), Simulator(converted() / "digits_fixed.sim")
    scripts = load_preprocessors(str(SCRIPT), 1)
    single = [fixed.feeds(scripts, (path,))["images"] for path in pictures(4)]
    truth = np.concatenate([fixed.run({"images": picture})["logits"] for picture in single])
    for count in frames:
        together = simulator.run({"images": np.concatenate(single[:count])})["logits"]
        assert np.array_equal(together, truth[:count])
    for count in {1, 2, 3, 4} - set(frames):
        with pytest.raises(ValueError, match=r"expected .*shape .* got"):
            simulator.run({"images": np.concatenate(single[:count])})
    assert np.array_equal(np.concatenate(outputs(simulator, 3)), truth[:3]), "files, where groups may be filled up"


def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines, "loading_processes", lambda asked, feeds, samples: 2)


def test_calibration_in_two_processes_gives_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--input_config", INI, "-i", shipped.sample_list(tmp_path, CALIBRATION, 4), "-n", SCRIPT]
    options += ["-m", converted() / "digits_float.sim", "--soc_version", CHIP, "--quant_level", "L3", "-o"]
    ran(calibrator_tool.main, *options, tmp_path / "1.sim")
    two_processes(monkeypatch)
    ran(calibrator_tool.main, *options, tmp_path / "2.sim")
    assert (tmp_path / "1.sim").read_bytes() == (tmp_path / "2.sim").read_bytes()


@pytest.mark.parametrize(
    ("fault", "message"),
    [("raise ValueError('oh')", "ValueError: oh"), ("os.kill(os.getpid(), 9)", "use a smaller --num_process")],
)
def test_faults_in_another_process(
    fault: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An exception there is reported as here; so is the death of the process."""
    script = tmp_path / "pre.py"
    body = SCRIPT.read_text(encoding="utf-8").replace(
        '"""\n    image = ', f'"""\n    if "003" in str(img_path):\n        {fault}\n    image = '
    )
    script.write_text(body.replace("import cv2", "import os\n\nimport cv2"), encoding="utf-8")
    options = ["--input_config", INI, "-i", shipped.sample_list(tmp_path, CALIBRATION, 4), "-n", script]
    options += ["-m", converted() / "digits_float.sim", "--soc_version", CHIP, "-o", tmp_path / "out.sim"]
    two_processes(monkeypatch)
    assert calibrator_tool.main([str(option) for option in options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.sim").exists()


# -- result files ------------------------------------------------------------------------------------------------------
def test_classification_file() -> None:
    best = ranked(np.array([[0.5, -1.0, 2.0, 0.5, 0.25, 0.0]], np.float32))
    text = "cat.png\n2 2.000000\n0 0.500000\n3 0.500000\n4 0.250000\n5 0.000000\n"
    assert classification_text("cat.png", best) == text


def test_unknown_file() -> None:
    values = np.arange(18, dtype=np.float32).reshape(1, 1, 3, 6)
    first = " ".join(f"{value:.6f}" for value in range(16))
    header = "out Tensor:\n{\ntensor dim:4, Original shape:[1 1 3 6]\ntensor data:\n"
    assert unknown_text({"out": values}) == f"{header}{first}\n16.000000 17.000000\n}}\n"


def test_labels_are_found_by_path_then_by_name(tmp_path: Path) -> None:
    file = tmp_path / "l.txt"
    file.write_text("a/1.png 3\nb/1.png 4\nc 2.png 5\n")
    labels = Labels(file)
    assert [labels.of(tmp_path / name) for name in ("a/1.png", "b/1.png", "elsewhere/c 2.png")] == [3, 4, 5]
    with pytest.raises(UserError, match="several labels"):
        labels.of(Path("other/1.png"))
