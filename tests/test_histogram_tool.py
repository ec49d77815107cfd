"""Distributions: counts beside numpy's, and the programs that show them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from sgs.cli import calibrator_tool, compare_models, histogram, sgs_converter
from sgs.compare.distributions import chosen_ranges, distributions
from sgs.compare.sim_stage import SimStage
from sgs.compare.stage import Stage
from sgs.data.images import Sample, resolve_samples
from sgs.data.preprocess import Preprocessor, load_preprocessors
from sgs.numeric.quantise import Array, dequantise
from sgs.quant.export import SCALES_KEY
from sgs.report.histogram import BINS
from sgs.sim import read_sim, write_sim
from sgs.simulation import Simulator
from shipped import CALIBRATION, CHIP, INI, SCRIPT, SOURCE, TEST, converted, sample_list
from test_compile_report import Page

OUTPUT = "logits"


def files() -> tuple[Path, Path]:
    """(float, fixed) .sim of the digit classifier."""
    return converted() / "digits_float.sim", converted() / "digits_fixed.sim"


def pictures(folder: Path, count: int = 3) -> list[str]:
    return ["-i", str(sample_list(folder, TEST, count)), "-n", str(SCRIPT)]


def values_of(stage: Stage, name: str, scripts: Sequence[Preprocessor], samples: Sequence[Sample]) -> Array:
    """All values of a tensor, float [values]."""
    runs = (stage.tensors(stage.feeds(scripts, sample), [name]) for sample in samples)
    return np.concatenate([stage.real(name, held).ravel() for run in runs for _, held in run])


# -- counting ----------------------------------------------------------------------------------------------------------
def test_counts_are_those_of_all_samples(tmp_path: Path) -> None:
    """Beside numpy on what the two models give, one after the other."""
    real, held = (SimStage(Simulator(file)) for file in files())
    scripts = load_preprocessors(str(SCRIPT), 1)
    samples = resolve_samples(str(sample_list(tmp_path, TEST, 3)), 1)
    made = (node.outputs[0] for node in held.graph.nodes if node.op == "CONV_2D")
    name = next(name for name in made if name in real.described)
    found = distributions(real, held, {name: name, OUTPUT: OUTPUT}, scripts, samples)
    for one in found:
        values = [values_of(stage, one.name, scripts, samples).astype(np.float64) for stage in (real, held)]
        assert (one.low, one.high) == (np.concatenate(values).min(), np.concatenate(values).max())
        for side, counts in zip(values, (one.real, one.held), strict=True):
            expected, _ = np.histogram(side, BINS, (one.low, one.high))
            assert counts == tuple(expected) and sum(counts) == side.size
    quant, dtype = held.graph[name].quant, held.graph[name].dtype
    assert quant is not None
    ends = dequantise(np.array([max(dtype.qmin, -dtype.qmax), dtype.qmax]), quant)
    assert (found[0].range_low, found[0].range_high) == pytest.approx(tuple(ends), rel=1e-6)
    assert found[1].range_low is not None, "an output has the range of its codes"


def test_equalised_channels_are_as_the_network_came(tmp_path: Path) -> None:
    """Codes of twice the values, said to be so, are counted as the values; they have no single range."""
    held, scaled = (SimStage(Simulator(files()[1])) for _ in range(2))
    name = next(node.outputs[0] for node in held.graph.nodes if node.op == "CONV_2D")
    scaled.graph.metadata[SCALES_KEY] = {name: [2.0] * held.graph[name].shape[-1]}
    scripts, samples = load_preprocessors(str(SCRIPT), 1), resolve_samples(str(sample_list(tmp_path, TEST, 1)), 1)
    (plain,), (halved,) = (distributions(None, one, {name: None}, scripts, samples) for one in (held, scaled))
    assert (halved.low, halved.high, halved.held) == (plain.low / 2, plain.high / 2, plain.held)
    assert plain.real == () and plain.range_low is not None and halved.range_low is None
    assert name in chosen_ranges(held) and name not in chosen_ranges(scaled)


# -- histogram.py ------------------------------------------------------------------------------------------------------
def run(*words: object) -> int:
    return histogram.main([str(word) for word in words])


def test_a_page_of_two_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real, held = files()
    page = tmp_path / "values.html"
    command = ["-m", real, "-a", held, *pictures(tmp_path), "-o", page]
    assert run(*command) == 0
    assert f"Histograms at: {page}" in capsys.readouterr().out
    text = page.read_text("utf-8")
    parsed = Page(text)
    names = re.findall(r"<figcaption>(.*?)</figcaption><svg", text)
    assert OUTPUT in names and len(names) == parsed.tags["svg"] > 20
    assert text.count('<path class="real"') == text.count('<path class="held"') == len(names)
    assert "digits_float.sim" in text and "digits_fixed.sim" in text
    again = tmp_path / "again.html"
    assert run(*command[:-1], again) == 0 and again.read_bytes() == page.read_bytes()
    assert run(*command) == 2 and "is there already" in capsys.readouterr().err
    assert run(*command, "--force", "--tensors", OUTPUT) == 0
    assert Page(page.read_text("utf-8")).tags["svg"] == 1


def test_pictures_of_one_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real, _ = files()
    single = tmp_path / "one.svg"
    assert run("-m", real, *pictures(tmp_path), "-o", single, "--tensors", OUTPUT) == 0
    root = ElementTree.parse(single).getroot()
    assert root[0].text == OUTPUT and not list(root.iterfind(".//{*}rect")), "a float model has no ranges"
    folder = tmp_path / "many"
    assert run("-m", real, *pictures(tmp_path), "-o", folder, "--tensors", OUTPUT, "*Conv*") == 0
    made = sorted(folder.iterdir())
    wanted = [name for name in read_sim(real).graph.tensors if "Conv" in name]
    assert len(made) > 5 and {ElementTree.parse(file).getroot()[0].text for file in made} <= {OUTPUT, *wanted}
    (folder / "mine.txt").write_text("kept")
    assert run("-m", real, *pictures(tmp_path), "-o", folder, "--tensors", OUTPUT) == 2
    error = capsys.readouterr().err
    assert f"{folder / OUTPUT}.svg: is there already" in error and (folder / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tensors", "logits", "*Conv*"], "holds one tensor, and"),
        (["--tensors", "nothing", "else*"], "there is no such tensor"),
        (["--input_config", "INI", "--tensors", "logits"], "--input_config is for a source model"),
    ],
)
def test_what_is_refused(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real, _ = files()
    words = [str(INI) if word == "INI" else word for word in words]
    assert run("-m", real, *pictures(tmp_path, 1), "-o", tmp_path / "x.svg", *words) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "x.svg").exists()


def test_a_name_tells_what_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real, _ = files()
    command = ["-m", real, *pictures(tmp_path, 1), "--tensors", OUTPUT, "-o"]
    assert run(*command, tmp_path / "x.png") == 2
    assert "x.png: histograms are not written as .png (end the name in .html" in capsys.readouterr().err
    assert run(*command, tmp_path / "X.HTML") == 0 and run(*command, tmp_path / "run.1") == 0
    assert Page((tmp_path / "X.HTML").read_text("utf-8")).words and not (tmp_path / "x.png").exists()
    assert [file.name for file in (tmp_path / "run.1").iterdir()] == [f"{OUTPUT}.svg"]


# -- reports of the other programs -------------------------------------------------------------------------------------
def headings(page: Path) -> list[str]:
    return [text for tag, text in Page(page.read_text("utf-8")).words if tag == "h2"]


def test_the_page_of_a_comparison(tmp_path: Path) -> None:
    real, held = files()
    page = tmp_path / "c.html"
    command = ["-a", str(held), "-b", str(real), *pictures(tmp_path), "--samples", "2", "--html", str(page)]
    assert compare_models.main(command) == 0
    assert headings(page)[:2] == ["Summary", "Pictures"] and "Distributions" in headings(page)
    text = page.read_text("utf-8")
    assert "digits_fixed.sim beside digits_float.sim" in text, "the float one is the reference"
    assert len(re.findall(r">\d at \S+ beside \d at \S+: the same class", text)) == 2


def test_two_models_that_end_elsewhere_have_no_pictures(tmp_path: Path) -> None:
    real, held = files()
    graph = read_sim(real).graph
    inner = next(node.outputs[0] for node in graph.nodes if node.op == "CONV_2D")  # a map, which could be drawn
    graph.outputs = [inner]
    graph.prune()
    graph.metadata["config"] = str(graph.metadata["config"]).replace(f"outputs={OUTPUT};", f"outputs={inner};")
    write_sim(graph, tmp_path / "cut.sim", stage="float")
    page = tmp_path / "c.html"
    command = ["-a", str(tmp_path / "cut.sim"), "-b", str(held), *pictures(tmp_path, 1), "--html", str(page)]
    assert compare_models.main(command) == 0
    assert headings(page)[0] == "Summary" and "Pictures" not in headings(page)


def test_the_page_of_a_conversion(tmp_path: Path) -> None:
    """Everything, of one run; the same bytes in every run."""
    pages = []
    for run_of in ("a", "b"):
        (tmp_path / run_of).mkdir()
        options = ["-i", str(sample_list(tmp_path, CALIBRATION, 3)), "-n", str(SCRIPT), "--quant_level", "L3"]
        target = ["--output_file", str(tmp_path / run_of / "d.img"), "--report", "-c", "Classification"]
        target.append("--export_models")
        assert sgs_converter.main(["onnx", *SOURCE, *options, *target]) == 0
        pages.append(tmp_path / run_of / "d_report.html")
    accuracy = {"Summary", "Pictures", "Errors by layer", "Network", "Distributions", "Bits and sizes"}
    assert accuracy | {"Cost", "Roofline", "Cost by layer", "Chip", "Settings"} <= set(headings(pages[0]))
    text = pages[0].read_text("utf-8")
    assert pages[0].read_bytes() == pages[1].read_bytes() and len(text) < 1_000_000
    assert "<h1>d</h1>" in text and "fixed .sim d_fixed.sim beside float .sim d_float.sim, on" in text
    assert read_sim(tmp_path / "a/d_fixed.sim").graph.metadata["category"] == "Classification"
    assert "A frame takes" in text and "on pcupid" in text and "<td>L3</td>" in text
    assert len(re.findall("data:image/jpeg", text)) == 6 and "inputs=" in text
    fixed = read_sim(files()[1]).graph
    assert OUTPUT in fixed.outputs and f"Output {OUTPUT}" in text


def test_the_page_of_a_calibration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real, _ = files()
    fixed, page = tmp_path / "d_fixed.sim", tmp_path / "d.html"
    options = ["-m", str(real), "--input_config", str(INI), *pictures(tmp_path), "--soc_version", CHIP]
    options += ["-o", str(fixed), "--html", str(page), "--quant_level", "L1"]
    assert calibrator_tool.main(options) == 0 and fixed.is_file()
    assert headings(page)[0] == "Summary" and "Network" in headings(page) and "Cost" not in headings(page)
    assert f"fixed .sim {fixed.name} beside float .sim {real.name}, on" in page.read_text("utf-8")
    plan = [word for word in options if word not in ("--quant_level", "L1")]
    at = plan.index("-i")
    assert calibrator_tool.main([*plan[:at], *plan[at + 4 :], "--plan", "x.json"]) == 2
    assert "--plan measures nothing, so --html has no say" in capsys.readouterr().err
