"""torch_calibrator on a shipped network: modes, presets, what is refused, and what is left behind."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sgs import modes
from sgs.builder import GraphBuilder
from sgs.cli import calibrator_tool, compiler_tool, sgs_converter, torch_calibrator_tool
from sgs.config.input_config import ConvSpec
from sgs.config.quant_config import MODES, Preset, QuantConfig
from sgs.engine import FixedEngine, run_reference
from sgs.ir import Graph
from sgs.numeric.types import DType
from sgs.pipelines import load_config
from sgs.quant.boundary import codes_of_inputs
from sgs.quant.edit import mac_nodes
from sgs.quant.front import Front, Size
from sgs.quant.gather import plain
from sgs.quant.levels import LEVELS, Calibration
from sgs.quant.mixed import with_bits
from sgs.quant.plan import QuantPlan, TensorRange
from sgs.quant.presets import presets_for
from sgs.sim import read_sim
from shipped import CALIBRATION, CHIP, FOLDER, INI, SCRIPT, SOURCE, converted, launch, sample_list
from test_calibration import calibration, network, samples

SETTINGS = FOLDER / "quant_config.yaml"
TORCH = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")


def arguments(folder: Path, mode: str, *more: object, settings: str | None = None, ini: Path = INI) -> list[str]:
    """A command line that calibrates on 8 pictures."""
    file = SETTINGS
    if settings is not None:
        file = folder / "quant_config.yaml"
        file.write_text(f"QUANT_CONFIG: {{{settings}}}", encoding="utf-8")
    words = ["-m", converted() / "digits_float.sim", "--input_config", ini, "-i", sample_list(folder, CALIBRATION, 8)]
    words += ["-n", SCRIPT, "--quant_config", file, "-q", mode, "--soc_version", CHIP, "-o", folder / "digits.sim"]
    return [str(word) for word in (*words, *more)]


def made(folder: Path, mode: str, *more: object, settings: str | None = None) -> Graph:
    """The fixed .sim of a mode."""
    assert torch_calibrator_tool.main(arguments(folder, mode, *more, settings=settings)) == 0
    return read_sim(folder / "digits.sim").graph


def ini_with(folder: Path, text: str) -> Path:
    path = folder / "input_config.ini"
    path.write_text(f"{INI.read_text()}\n[CONV_CONFIG]\n{text}\n", encoding="utf-8")
    return path


def bits_of(graph: Graph) -> dict[str, tuple[DType, DType]]:
    """(operand, weight) of every sum of products."""
    return {n.outputs[0]: (graph[n.inputs[0] or ""].dtype, graph[n.inputs[1] or ""].dtype) for n in mac_nodes(graph)}


# -- the program -------------------------------------------------------------------------------------------------------
def test_all_in_16_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    fixed = made(tmp_path, "q10", "--save_quant_info")
    assert set(bits_of(fixed).values()) == {(DType.INT16, DType.INT16)}
    history = fixed.metadata["calibration"]
    assert (history["mode"], history["level"], history["samples"]) == ("Q10", "L3", 8)
    assert history["quant_config"]["retrain_iter_num"] == 40
    out = capsys.readouterr().out
    assert "worst 10 of" in out and "Q10 on 8 samples: 29 of 29 convolutions in 16 bit" in out
    assert out.splitlines()[-1] == f"Fixed model at: {tmp_path / 'digits.sim'}"
    names = {path.name for path in tmp_path.iterdir()} - {"calibration_8.txt"}
    assert names == {"digits.sim", *(f"digits_{kind}" for kind in ("quant_info.json", "report.json", "statistics.npz"))}
    assert "levels above L2" not in caplog.text, "which is said of the ini's input_format"


def test_all_in_8_bits_is_the_calibrator_at_l3(tmp_path: Path) -> None:
    """Later tools take the file, its plan makes it again, and so does the one-shot program."""
    done = launch(
        "Scripts/calibrator/torch_calibrator.py", *arguments(tmp_path, "Q1", "--save_quant_info"), cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    first = (tmp_path / "digits.sim").read_bytes()
    assert set(bits_of(read_sim(tmp_path / "digits.sim").graph).values()) == {(DType.UINT8, DType.INT8)}
    info = tmp_path / "digits_quant_info.json"
    plan, samples = info.read_text(), ["-i", str(tmp_path / "calibration_8.txt"), "-n", str(SCRIPT)]
    common = ["-m", str(converted() / "digits_float.sim"), "--soc_version", CHIP, "-o", str(tmp_path / "digits.sim")]
    ini = ["--input_config", str(ini_with(tmp_path, "input_format=ALL_UINT8"))]
    assert calibrator_tool.main([*common, *samples, *ini, "--quant_level", "L3", "--save_quant_info"]) == 0
    of_mode, of_level = json.loads(plan), json.loads(info.read_text())
    assert all(of_mode[key] == of_level[key] for key in ("ranges", "narrow", "macs", "scales"))
    (tmp_path / "plan.json").write_text(plan)
    assert calibrator_tool.main([*common, "--input_config", str(INI), "--plan", str(tmp_path / "plan.json")]) == 0
    assert (tmp_path / "digits.sim").read_bytes() == first
    words = ["onnx", *SOURCE, *samples, "--output_file", str(tmp_path / "d.img"), "--export_models"]
    assert sgs_converter.main([*words, "-q", "Q11", "--quant_config", str(SETTINGS)]) == 0
    assert (tmp_path / "d_fixed.sim").read_bytes() == first


def test_adaptive_is_the_calibrator_at_l5(tmp_path: Path) -> None:
    history = made(tmp_path, "Q12").metadata["calibration"]
    assert (history["mode"], history["level"]) == ("Q12", "L5")
    assert [step["name"] for step in history["steps"]][-2:] == ["biases on more samples", "second-order weights"]


def test_settings_without_a_say_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path, "Q11", "--cal_batchsize", "50", "-v", settings="mp_rate: 0.6, mixed_precisions: [8, 16]")
    told = capsys.readouterr().err
    assert "warning: mixed_precisions and mp_rate in" in told and "no say in Q11, only in Q13 and Q23" in told
    assert "warning: --cal_batchsize: no say in Q11" in told
    assert "info: retrain_iter_num and device: no say in Q11" in told


# -- what is refused ---------------------------------------------------------------------------------------------------
PRESET = "use_preset_min_max_bit: 1, PRESET_MIN_MAX_BIT: "


@pytest.mark.parametrize(
    ("mode", "more", "told"),
    [
        ("Q14", {}, ["'Q14' is not one of Q1, Q10, Q11"]),
        (
            "Q10",
            {"conv": "input_format=ALL_UINT8"},
            ["[CONV_CONFIG] input_format, line", "contradicts"],
        ),
        ("Q11", {"conv": "input_format=DEPTHWISE_INT16"}, ["DEPTHWISE_INT16 contradicts mode Q11, which is ALL_UINT8"]),
        ("Q13", {"settings": "mp_rate: 0.2"}, ["mp_rate, line 1", "out of range"]),
        (
            "Q13",
            {"settings": f"mp_rate: 0.25, {PRESET}[{{name: logits/weight, bit: 16}}]"},
            ["mp_rate 0.25", "at least 0.2596", "ask for 0.2596 to 0.5064"],
        ),
        ("Q13", {"chip": "tiramisu"}, ["asks Q13 for 4-bit weights, which tiramisu does not take", "pcupid"]),
        pytest.param("Q21", {"settings": "device: 'cuda:99'"}, ["device cuda:99: "], marks=TORCH),
        ("Q11", {"settings": PRESET + "[{name: logit, bit: 8}]"}, ["'logit'", "did you mean logits?"]),
        ("Q11", {"settings": PRESET + "[{name: images, bit: 4}]"}, ["'images'", "bit 4 is for weights"]),
        ("Q11", {"settings": PRESET + "[{name: logits/weight, min: 0, max: 0}]"}, ["0 for a channel whose weights"]),
    ],
)
def test_what_is_refused(
    mode: str, more: dict[str, str], told: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ini = ini_with(tmp_path, more["conv"]) if "conv" in more else INI
    chip = ["--soc_version", more["chip"]] if "chip" in more else []
    assert torch_calibrator_tool.main([*arguments(tmp_path, mode, settings=more.get("settings"), ini=ini), *chip]) == 2
    error = capsys.readouterr().err
    assert all(text in error for text in told), error
    assert not (tmp_path / "digits.sim").exists()


def test_problems_of_ini_and_presets_are_told_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ini = ini_with(tmp_path, "input_format=ALL_INT16")
    (tmp_path / "digits_retrain").write_text("mine")
    settings = PRESET + "[{name: logit, bit: 8}, {name: images, bit: 4}]"
    assert torch_calibrator_tool.main(arguments(tmp_path, "Q13", settings=settings, ini=ini)) == 2
    error = capsys.readouterr().err
    for told in (
        "4 problems",
        "did you mean logits?",
        "bit 4 is for",
        "contradicts mode Q13",
        "digits_retrain: is not a",
    ):
        assert told in error


def test_a_folder_that_cannot_be_written_to_is_found_before_long_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "digits_retrain/plan.json").mkdir(parents=True)
    assert torch_calibrator_tool.main(arguments(tmp_path, "Q13")) == 2
    printed = capsys.readouterr()
    assert "plan.json: cannot be written: it is a folder" in printed.err and "outputs at" not in printed.out


def test_the_same_format_as_the_mode_is_fine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ini = ini_with(tmp_path, "input_format=ALL_UINT8;\ntensor_arrays=/features/features.0/features.0.2/Clip_output_0")
    assert torch_calibrator_tool.main(arguments(tmp_path, "Q11", ini=ini)) == 0
    assert "1 of 29 convolutions in 16 bit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-q", "Q11"], "-q needs --quant_config"),
        (["--quant_config", "q.yaml"], "--quant_config: only with -q"),
        (["--cal_batchsize", "5"], "--cal_batchsize: only with -q"),
        (
            ["-q", "Q11", "--quant_config", "q.yaml", "--quant_level", "L5", "-sth", "0.1", "--quant_file", "x"],
            "so --quant_level, --sensitivity_threshold, --quant_file has no say",
        ),
        (["-q", "Q11", "--quant_config", "no.yaml"], "no.yaml: cannot be read: No such file"),
    ],
)
def test_options_of_the_one_shot_program(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["onnx", *SOURCE, "-i", str(CALIBRATION), "-n", str(SCRIPT), "--output_file", str(tmp_path / "d.img")]
    assert sgs_converter.main([*common, *words]) == 2
    assert told in capsys.readouterr().err


def test_torch_is_asked_for_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sgs.frontends.platforms.find_spec", lambda name: None)
    assert torch_calibrator_tool.main(arguments(tmp_path, "Q21")) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: q_mode: the Python package torch is not installed (pip install ")
    assert "[torch]" in error


# -- presets -----------------------------------------------------------------------------------------------------------
GRAPH = network()
ENTRIES = (
    Preset("s", -3.0, 4.5),  # where channels would be equalised
    Preset("d/weight", -1.5, 0.25, 8),
    Preset("y/weight", bit=16),
    Preset("x", -2.0, 2.0, 8),
)


def preset(*entries: Preset, conv: ConvSpec | None = None, **more: Any) -> Calibration:
    return calibration(GRAPH, conv, presets=presets_for(GRAPH, entries, file="q.yaml"), **more)


@pytest.mark.parametrize("level", LEVELS)
def test_presets_hold_at_every_level(level: str) -> None:
    work = preset(*ENTRIES, threshold=1e-5, max_int16_macs=1.0)
    plan = work.run(level)
    core = work.fixed(plan)
    assert plan.narrow["s"] == plan.ranges["s"] == TensorRange(-3.0, 4.5, "preset")
    assert plan.narrow["x"] == TensorRange(-2.0, 2.0, "preset") and core["x"].dtype is DType.UINT8
    assert (plan.macs["d"].weight_bound == 1.5).all() and plan.macs["d"].weight is None
    assert (plan.macs["a"].bits, plan.macs["d"].bits, plan.macs["y"].bits) == (8, 8, 16)
    assert not plan.scales.keys() & {"a", "s", "d", "e"}
    operand = core[next(n for n in mac_nodes(core) if n.outputs[0] == "d").inputs[0] or ""]
    assert operand.quant is not None and operand.quant.scale[0] == pytest.approx(7.5 / 255)
    feeds = codes_of_inputs(core, samples(GRAPH, 1, seed=5)[0])
    values, truth = FixedEngine(core, threads=1).run(feeds), run_reference(core, feeds)
    assert all(np.array_equal(values[name], truth[name]) for name in core.outputs)


def test_what_presets_leave_open_is_decided_as_without_them() -> None:
    free, held = calibration(GRAPH).run("L3"), preset(Preset("y/weight", bit=8), Preset("x", bit=8)).run("L3")
    assert free.to_json() == held.to_json()


def test_presets_go_before_what_a_mode_asks_for() -> None:
    work = preset(Preset("y/weight", bit=16), Preset("s", bit=16), conv=ConvSpec("ALL_UINT8"))
    assert {name: mac.bits for name, mac in work.run("L5").macs.items()} == {"a": 8, "d": 16, "y": 16}
    assert not work.presets.not_followed(GRAPH, work.fixed(work.run("L1")))


def test_presets_that_cannot_be_followed_are_named() -> None:
    work = preset(Preset("z", bit=8), Preset("y/bias", 0.0, 1.0), Preset("x", -1.0, 1.0))
    left = work.presets.not_followed(GRAPH, work.fixed(work.run("L1")))
    assert left == ["'z' (held in 16 bits, not in 8)", "'y/bias' (a bias, which follows from its data)"]


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_preset_bounds_hold_in_mixed_precision(bits: int) -> None:
    work = preset(Preset("d/weight", -0.5, 0.25))
    plan = with_bits(work, work.run("L3"), {"a": 8, "d": bits, "y": 8})
    assert plan.macs["d"].bits == bits and (plan.macs["d"].weight_bound == 0.5).all()


def test_channels_may_be_scaled_where_presets_say_nothing_of_numbers() -> None:
    assert not preset(Preset("d/weight", bit=8), Preset("s", bit=8)).presets.still
    assert preset(Preset("d/weight", -0.5, 0.25)).presets.still == {"s", "d"}


def test_presets_of_the_program(tmp_path: Path) -> None:
    entries = "[{name: images, min: -1.5, max: 1.5}, {name: logits/weight, min: null, max: null, bit: 16}]"
    fixed = made(tmp_path, "Q11", settings=PRESET + entries)
    kinds = bits_of(fixed)
    assert kinds.pop("logits/codes") == (DType.INT16, DType.INT16) and set(kinds.values()) == {
        (DType.UINT8, DType.INT8)
    }
    quant = fixed[mac_nodes(fixed)[0].inputs[0] or ""].quant
    assert quant is not None and quant.scale[0] == pytest.approx(3 / 255)
    listed = fixed.metadata["calibration"]["quant_config"]["PRESET_MIN_MAX_BIT"]
    assert [entry["name"] for entry in listed] == ["images", "logits/weight"]


# -- mixed precision ---------------------------------------------------------------------------------------------------
def rate_of(graph: Graph) -> float:
    """Σ bits · weights / (16 · Σ weights)."""
    weights = [graph[node.inputs[1] or ""] for node in mac_nodes(graph)]
    return sum(w.dtype.bits * w.elements for w in weights) / (16 * sum(w.elements for w in weights))


def test_mixed_precision_at_a_rate_and_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured is measured once; what is preset keeps its bits and counts."""
    presets = PRESET + "[{name: logits/weight, bit: 16}]"
    fixed = made(tmp_path, "Q13", settings=f"mp_rate: 0.3, {presets}")
    kinds = bits_of(fixed)
    assert kinds.pop("logits/codes") == (DType.INT16, DType.INT16)
    assert set(kinds.values()) == {(DType.UINT8, DType.INT4), (DType.UINT8, DType.INT8)}
    assert 0.27 < rate_of(fixed) <= 0.3
    told = fixed.metadata["calibration"]["mixed"]
    assert told["precisions"] == [4, 8] and not told["recommended"]
    assert told["chosen"]["reached"] == pytest.approx(rate_of(fixed))
    assert [path.name for path in (tmp_path / "digits_retrain").iterdir()] == ["sensitivities.json"]

    monkeypatch.setattr("sgs.quant.mixed._measured", lambda *arguments: pytest.fail("measured again"))
    other = made(tmp_path, "Q13", settings=f"mp_rate: 0.35, {presets}")
    assert 0.32 < rate_of(other) <= 0.35
    steps = [run.metadata["calibration"]["steps"][-1] for run in (fixed, other)]
    assert [step["name"] for step in steps] == ["mixed precision at 0.3", "mixed precision at 0.35"]
    assert steps[1]["sqnr"] > steps[0]["sqnr"] + 1


def test_the_rate_that_is_recommended_loses_little(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixed = made(tmp_path, "Q13", settings="")
    told, steps = fixed.metadata["calibration"]["mixed"], fixed.metadata["calibration"]["steps"]
    first = next(i for i, step in enumerate(steps) if step["name"] == "all in the higher precision")
    tried = {float(step["name"][-4:]): step for step in steps[first + 1 :]}
    limit = min(25.0, steps[first]["sqnr"] - 3.0103)
    assert all(step["kept"] == (step["sqnr"] >= limit) for step in tried.values())
    least = min(rate for rate, step in tried.items() if step["kept"])
    assert max(rate for rate, step in tried.items() if not step["kept"]) == pytest.approx(least - 0.01)
    assert told["recommended"] and told["chosen"]["measured"] == pytest.approx(tried[least]["sqnr"], abs=1e-5)
    assert rate_of(fixed) == pytest.approx(told["chosen"]["reached"]) and rate_of(fixed) <= least
    assert f"mp_rate {told['chosen']['reached']:.4g}, recommended" in capsys.readouterr().out


@pytest.mark.parametrize(("expected", "needed"), [(0.5, 0.31), (0.25, 0.31), (0.4, 0.25), (0.3, 0.5)])
def test_what_is_measured_decides_which_rate_is_recommended(
    expected: float, needed: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether too much or too little is expected of it. 25 weights, each of which is a step of the rates."""
    names = [f"w{i}" for i in range(25)]
    front = Front((4, 8), dict.fromkeys(names, Size(1, 1)), dict.fromkeys(names, {4: 1.0, 8: 0.0}), {})
    monkeypatch.setattr(Front, "recommended_rate", lambda _: expected)
    monkeypatch.setattr(modes, "with_bits", lambda _, plan, bits: sum(bits.values()) / 400)
    tried = dict[float, bool]()
    measured = SimpleNamespace(
        score=lambda rate: 30.0 if rate >= needed - 1e-6 else 20.0,
        note=lambda _, rate, kept=True: tried.update({rate: kept}),
    )
    rate, mixed = modes._recommended(measured, QuantPlan(), front)  # type: ignore[arg-type]
    assert rate == pytest.approx(needed) and mixed.chosen.rate == pytest.approx(needed) and mixed.recommended
    assert len(tried) <= 8 and all(kept == (rate >= needed - 1e-6) for rate, kept in tried.items())


@pytest.mark.parametrize("mode", ["Q13", pytest.param("Q21", marks=TORCH), pytest.param("Q23", marks=TORCH)])
def test_networks_without_weights(mode: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They have nothing to mix or to retrain, whatever the rate, and a warning says so."""
    build = GraphBuilder()
    x = build.input("x", (1, 5, 4, 3))
    graph = build.output(build("ADD", x, np.float32([0.5, 1, 2]), activation="NONE", output="y"))
    chosen = options(mode, tmp_path, mp_rate=0.6 if mode == "Q23" else None, device="cpu")
    text = "[INPUT_CONFIG]\ninputs=x\ninput_formats=RAWDATA_F32_NHWC\n[OUTPUT_CONFIG]\noutputs=y\n"
    (tmp_path / "x.ini").write_text(text, encoding="utf-8")
    recipe = modes.by_mode(graph, load_config(tmp_path / "x.ini"), chosen)
    decided = recipe.decide(calibration(graph), lambda plan: {})
    assert decided.mixed is None and not decided.plan.macs and "y" in decided.plan.ranges
    assert "nothing to mix or to retrain" in caplog.text


@TORCH
def test_rates_are_told_before_the_retraining(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which may take hours, for a rate that is not the one that is wanted."""
    told = list[str]()

    def retrained(calibration: Calibration, plan: QuantPlan, *rest: object) -> QuantPlan:
        told.append(capsys.readouterr().out)
        return plan

    monkeypatch.setattr(modes, "_retrained", retrained)
    made(tmp_path, "Q23", settings="mp_rate: 0.3, device: cpu")
    assert "expected dB" in told[0] and "as asked for" in told[0]
    assert "expected dB" not in capsys.readouterr().out


# -- what lies beside the output ---------------------------------------------------------------------------------------
def options(mode: str, folder: Path, **more: Any) -> modes.ModeOptions:
    return modes.ModeOptions(MODES[mode], QuantConfig(folder / "q.yaml", **more), None, folder / "d_retrain")


def test_an_interrupted_run_leaves_its_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sgs.quant.mixed._measured", interrupted)
        assert torch_calibrator_tool.main(arguments(tmp_path, "Q13")) == 130
    assert not (tmp_path / "digits.sim").exists()
    plan = tmp_path / "digits_retrain/plan.json"
    words = ["-m", converted() / "digits_float.sim", "--input_config", INI, "--soc_version", CHIP, "--plan", plan]
    assert calibrator_tool.main([*map(str, words), "-o", str(tmp_path / "digits.sim")]) == 0, "what it had so far"
    fixed = read_sim(tmp_path / "digits.sim").graph
    assert rate_of(fixed) == 0.5 and fixed.metadata["calibration"]["mode"] == "Q13"
    assert "edited" not in fixed.metadata["calibration"]


def test_the_best_plan_so_far_is_kept_and_goes_when_all_is_done(tmp_path: Path) -> None:
    chosen = options("Q21", tmp_path)
    chosen.keep(QuantPlan(level="Q21"), {"mode": "Q21"})
    folder = tmp_path / "d_retrain"
    assert [path.name for path in folder.iterdir()] == ["plan.json"]
    (folder / "blocks").mkdir()
    (folder / "blocks/0.npz").write_text("x")
    chosen.finish()
    assert not folder.exists()
    chosen.keep(QuantPlan(level="Q21"), {})
    (folder / "sensitivities.json").write_text("{}")
    chosen.finish()
    assert [path.name for path in folder.iterdir()] == ["sensitivities.json"]
    options("Q11", tmp_path).finish()
    options("Q11", tmp_path).keep(QuantPlan(), {})
    assert [path.name for path in folder.iterdir()] == ["sensitivities.json"], "a mode without a use for the folder"


# -- retraining --------------------------------------------------------------------------------------------------------
@TORCH
@pytest.mark.parametrize(("better", "worth"), [(True, 0.0), (True, 100.0), (False, 0.0)])
def test_what_retraining_is_asked_and_when_it_is_kept(
    better: bool, worth: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modes, "WORTH_RETRAINING", worth)
    kept = better and not worth
    asked: list[Any] = []

    def retrained(calibration: Calibration, plan: QuantPlan, settings: Any) -> QuantPlan:
        asked.append(settings)
        plan = plan.with_mac("d", weight_bound=plan.macs["d"].weight_bound * 2)  # against the presets
        return plan.with_mac("a", bits=16) if better else plan.with_mac("a", weight_bound=np.full(8, 0.1))

    monkeypatch.setitem(sys.modules, "sgs.retrain.run", SimpleNamespace(retrained=retrained))
    entries = (Preset("s", -3.0, 4.5), Preset("d/weight", -1.5, 0.25))
    chosen = options("Q21", tmp_path, retrain_iter_num=7, device="cpu", presets=entries, use_presets=True)
    work, plans = preset(*entries, conv=ConvSpec("ALL_UINT8")), list[QuantPlan]()
    decided = modes._decided(work, replace(chosen, batch=3), plans.append, plain, lambda mixed: None)
    assert [settings.scales for settings in asked] == [False, True]
    for settings in asked:
        assert (settings.iterations, settings.device, settings.batch) == (7, "cpu", 3)
        assert settings.pinned == {"s", "d/weight"} and settings.folder == tmp_path / "d_retrain/blocks"
    steps = [(step.name, step.kept) for step in work.steps[-2:]]
    assert steps == [("retraining", kept), ("retraining with scales", False)], "the same once more is no better"
    assert decided.plan is plans[-1] and (plans[-1] is plans[0]) is not kept
    assert decided.plan.macs["a"].bits == (16 if kept else 8)
    assert (decided.plan.macs["d"].weight_bound == 1.5).all()


@TORCH
def test_retraining_of_the_program(tmp_path: Path) -> None:
    """Its file is one that later tools take, and nothing is left beside it."""
    fixed = made(tmp_path, "Q21", settings="retrain_iter_num: 2, device: cpu")
    assert set(bits_of(fixed).values()) == {(DType.UINT8, DType.INT8)}
    history = fixed.metadata["calibration"]
    assert (history["mode"], history["steps"][-1]["name"]) == ("Q21", "retraining with scales")
    assert not (tmp_path / "digits_retrain").exists()
    assert compiler_tool.main(["-m", str(tmp_path / "digits.sim"), "--soc_version", CHIP]) == 0
