"""dump_tensors and performance_timeline, the programs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_snippets import Net
from sgs.cli import dump_tensors, performance_timeline
from sgs.compare.stages import open_stage
from sgs.data.preprocess import load_preprocessors
from sgs.img import read_image
from shipped import CHIP, EXAMPLES, INI, MODEL, ROOT, SCRIPT, TEST, converted, launch, sample_list
from test_show_tools import refused, told

PICTURE = TEST / "digit_000.png"
RUN = ("-i", PICTURE, "-n", SCRIPT)


def model(name: str) -> Path:
    return converted() / name


def record(path: Path) -> dict[str, Any]:
    """What a dump says of itself."""
    with np.load(path) as file:
        found: dict[str, Any] = json.loads(file["tensors.json"])
        assert set(file.files) == {one["name"] for one in found["tensors"]} | {"tensors.json"}
        return found


# -- dump_tensors ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["digits_fixed.sim", "digits.img", "Debug_digits_float.sim"])
def test_a_dump_holds_what_the_stage_gives(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(dump_tensors.main, capsys, "-m", model(name), *RUN, "-o", tmp_path / "x.npz")
    stage = open_stage(model(name))
    wanted = dict(stage.tensors(stage.feeds(load_preprocessors(str(SCRIPT), 1), (PICTURE,))))
    facts = record(tmp_path / "x.npz")
    assert f"{stage.kind} model, {len(wanted)} tensors of 1 sample" in text
    assert (facts["kind"], facts["model"], facts["sample"], facts["real"]) == (
        stage.kind,
        name,
        ["digit_000.png"],
        False,
    )
    assert [one["name"] for one in facts["tensors"]] == list(wanted)
    with np.load(tmp_path / "x.npz") as file:
        for one in facts["tensors"]:
            value = file[one["name"]]
            assert value.dtype == wanted[one["name"]].dtype and np.array_equal(value, wanted[one["name"]])
            assert (one["shape"], one["dtype"]) == (list(value.shape), value.dtype.name)
    assert ("left out: /Flatten_output_0: it is bytes" in text) == (name == "digits.img") == bool(facts["left_out"])


def test_codes_and_what_they_stand_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("-m", model("digits_fixed.sim"), *RUN, "--tensors", "/pool/*,logits/codes", "images")
    told(dump_tensors.main, capsys, *command, "-o", tmp_path / "codes.npz")
    told(dump_tensors.main, capsys, *command, "--real", "-o", tmp_path / "real.npz")
    facts = record(tmp_path / "codes.npz")["tensors"]
    assert [one["name"] for one in facts] == ["images", "/pool/GlobalAveragePool_output_0", "logits/codes"]
    with np.load(tmp_path / "codes.npz") as codes, np.load(tmp_path / "real.npz") as real:
        assert np.array_equal(codes["images"], real["images"]) and facts[0]["scale"] is None
        for one in facts[1:]:
            held = codes[one["name"]].astype(np.float32)
            assert held.any() and real[one["name"]].dtype == np.float32
            assert np.array_equal((held - one["zero_point"][0]) * np.float32(one["scale"][0]), real[one["name"]])
        logits = real["logits/codes"]
    assert record(tmp_path / "real.npz")["real"]
    (program,) = re.findall(r"(?s)```python\n(.*?)```", (ROOT / "docs/DUMPS.md").read_text("utf-8"))
    for name in ("codes.npz", "real.npz"):  # the page's program makes the same numbers of both
        found: dict[str, Any] = {}
        exec(program.replace("build/shapes/fixed.npz", str(tmp_path / name)), found)
        assert found["tensor"]["name"] == "logits/codes" and np.array_equal(found["real"], logits)


def test_a_file_for_each_of_several_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = sample_list(tmp_path, TEST, 3)
    command = ("-m", model("digits_float.sim"), "-i", samples, "-n", SCRIPT, "--tensors", "logits")
    assert "name a folder" in refused(dump_tensors.main, capsys, *command, "-o", tmp_path / "x.npz")
    told(dump_tensors.main, capsys, *command, "-o", tmp_path / "dumps")
    files = sorted((tmp_path / "dumps").iterdir())
    assert [file.name for file in files] == [f"tensors_digits_float_digit_00{n}.png.npz" for n in range(3)]
    values = [np.load(file)["logits"] for file in files]
    assert values[0].shape == (1, 10) and not np.array_equal(values[0], values[1])
    error = refused(dump_tensors.main, capsys, *command, "-o", tmp_path / "dumps")
    assert "3 problems" in error and error.count("is there already (name another, or add --force)") == 3


def test_a_dump_is_overwritten_when_told_and_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("-m", model("digits.img"), *RUN, "-o", tmp_path / "x.npz")
    told(dump_tensors.main, capsys, *command)
    before = (tmp_path / "x.npz").read_bytes()
    assert "is there already" in refused(dump_tensors.main, capsys, *command)
    assert (tmp_path / "x.npz").read_bytes() == before
    told(dump_tensors.main, capsys, *command, "--force")
    assert (tmp_path / "x.npz").read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["x.npz"]


def test_names_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = Net()
    x = net.input("x", 3, 5)
    y = net("Sigmoid", net("Neg", x, result="/深/a,b*[1]"), result="y")
    onnx.save(net.model(y), tmp_path / "x.onnx")
    (tmp_path / "x.ini").write_text(
        "[INPUT_CONFIG]\ninputs=x;\ntraining_input_formats=RAWDATA_F32_NHWC;\ninput_formats=RAWDATA_F32_NHWC;\n"
        "[OUTPUT_CONFIG]\noutputs=y;\n",
        encoding="utf-8",
    )
    (tmp_path / "x.py").write_text(
        "import numpy as np\ndef image_preprocess(path, norm=True):\n    return np.load(path)\n", encoding="utf-8"
    )
    value = np.arange(15, dtype=np.float32).reshape(3, 5)
    np.save(tmp_path / "x.npy", value)
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'x.npy'}\n", encoding="utf-8")
    source = ("-m", tmp_path / "x.onnx", "--input_config", tmp_path / "x.ini")
    run = ("-i", tmp_path / "list.txt", "-n", tmp_path / "x.py", "-o", tmp_path / "x.npz")
    told(dump_tensors.main, capsys, *source, *run, "--tensors", "/深/a,b*[1]")
    with np.load(tmp_path / "x.npz") as file:
        assert np.array_equal(file["/深/a,b*[1]"], -value)
    assert record(tmp_path / "x.npz")["values_of"] == "onnxruntime"


def test_the_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(dump_tensors.main, capsys, "-m", model("digits.img"), "--list").splitlines()
    assert text[0] == "Offline model, values of this toolchain" and len(text) == 46
    assert text[2].split() == ["images", "[1,64,64,3]", "uint8", "-", "-", "input", "or", "constant"]
    assert text[-1].startswith("/Flatten_output_0: left out: it is bytes of another tensor")
    command = ("-m", MODEL, "--input_config", INI, "--list", "--json", "--tensors", "logits", "/pool/*")
    facts = json.loads(told(dump_tensors.main, capsys, *command))
    assert (facts["kind"], facts["values_of"], facts["left_out"]) == ("ONNX", "onnxruntime", {})
    assert [(one["name"], one["shape"], one["operator"]) for one in facts["tensors"]] == [
        ("/pool/GlobalAveragePool_output_0", [1, 256, 1, 1], "GlobalAveragePool"),
        ("logits", [1, 10], "Gemm"),
    ]


def test_a_platform_that_is_more_than_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lenet = EXAMPLES[0]
    digit = (TEST / "digit_001.png", "-n", lenet.folder / f"{lenet.name}.py")
    words = [word for word in lenet.source if word not in ("--soc_version", CHIP)]
    told(dump_tensors.main, capsys, *words, "-i", *digit, "-o", tmp_path / "x.npz", "--tensors", "conv1*")
    facts = record(tmp_path / "x.npz")
    assert (facts["kind"], facts["model"]) == ("Caffe", "caffe_lenet.prototxt")
    assert {"conv1/Convolution", "conv1/BatchNorm"} <= {one["name"] for one in facts["tensors"]}
    error = refused(dump_tensors.main, capsys, "-m", lenet.folder / "caffe_lenet.prototxt", "--list")
    assert "name the platform first: dump_tensors.py caffe --model_file ... --weight_file ..." in error


REFUSALS = {
    "wrong name": (("--tensors", "logitz", *RUN, "-o", "x.npz"), "did you mean logits"),
    "nothing to run": (("--tensors", "logits"), "-i, -n, -o is needed, unless --list is given"),
    "list with samples": (("--list", "-i", "x.png", "--real"), "-i, --real is not for --list"),
    "json without list": (("-i", "x", "-n", "y", "-o", "z.npz", "--json"), "--json goes with --list"),
    "ini of a .sim": (("--list", "--input_config", INI), "leave it out"),
    "shapes of a .sim": (("--list", "--input_shapes", "1,2"), "--input_shapes goes with an .onnx"),
}


@pytest.mark.parametrize(("words", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(words: tuple[Any, ...], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert reason in refused(dump_tensors.main, capsys, "-m", model("digits_fixed.sim"), *words)


# -- performance_timeline ----------------------------------------------------------------------------------------------
def test_timeline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("-m", model("digits.img"), "-o", tmp_path / "x.trace.json")
    text = told(performance_timeline.main, capsys, *command, "--slowest", 3)
    program = read_image(model("digits.img")).programs[0]
    events = json.loads((tmp_path / "x.trace.json").read_text("utf-8"))["traceEvents"]
    drawn = [event for event in events if event["ph"] == "X"]
    assert len(drawn) == len(program.commands)
    lines = text.splitlines()
    assert f"({program.cycles:,} cycles, modelled)" in lines[0]
    longest = sorted((event["dur"] for event in drawn), reverse=True)[:3]
    assert [float(line.split()[1]) for line in lines[5:8]] == pytest.approx(longest, abs=0.005)
    assert not lines[8]
    assert "is there already" in refused(performance_timeline.main, capsys, *command)
    image = tmp_path / "x.img"
    image.write_bytes(model("digits.img").read_bytes())
    words = ("-m", image, "-o", image, "--force")
    assert "both an input and an output" in refused(performance_timeline.main, capsys, *words)


def test_timeline_with_measured_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("-m", model("digits.img"), "-o", tmp_path / "x.trace.json", *RUN, "--slowest", 100)
    text = told(performance_timeline.main, capsys, *command)
    table = text[text.index("slowest layers of the simulator") :].splitlines()[2:-2]
    assert len(table) == len(read_image(model("digits.img")).layers)
    shares = [[float(word[:-1]) for word in line.split() if word.endswith("%")] for line in table]
    assert np.sum(shares, axis=0) == pytest.approx([100, 100], abs=3)


def test_timeline_of_what_has_no_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "compile it, and name the .img" in refused(
        performance_timeline.main, capsys, "-m", model("digits_fixed.sim"), "-o", tmp_path / "x.json"
    )
    words = ("-m", model("digits.img"), "-o", tmp_path / "x.json", "-i", PICTURE)
    assert "-i and -n go together" in refused(performance_timeline.main, capsys, *words)


@pytest.mark.parametrize("program", ["dump_tensors", "performance_timeline"])
def test_launchers(program: str, tmp_path: Path) -> None:
    more = ("--list",) if program == "dump_tensors" else ()
    done = launch(f"DumpDebug/{program}.py", "-m", model("digits.img"), *more, cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ([] if more else ["digits.trace.json"])
