"""check_input_config: what it says of an ini beside a network and its scripts, and the ini that it writes for one."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto

import calibrator_custom
from conventions import ROOT
from onnx_snippets import Net
from sgs import pipelines
from sgs.cli import calibrator_tool, check_input_config, convert_tool, networks, sgs_converter, show_model_info
from sgs.config.draft import Draft, Measured, Terminal
from sgs.config.formats import colons
from sgs.config.input_config import parse_input_config, read_input_config
from sgs.data.measure import channel_order, measured_normalisation
from sgs.frontends.onnx_model import Judge
from sgs.frontends.platforms import platform_named
from sgs.numeric.quantise import Array
from sgs.quant.plan import QuantPlan
from shipped import CHIP, INI, MODEL, PICTURES, SCRIPT, TEST, converted, launch
from tflite_files import TfliteFile

DATA = os.environ.get("SGS_TEST_DATA")
NETWORKS = sorted(Path(DATA, "onnx").rglob("*.onnx")) if DATA else []
PICTURE = TEST / "digit_000.png"


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[str, str]:
    """(stdout, stderr) of a run that must end well."""
    capsys.readouterr()  # what making its files printed
    code = check_input_config.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out, err


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The error of a run that must refuse: one message, and nothing else."""
    capsys.readouterr()
    assert check_input_config.main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("error: "), err
    return err


def changed(folder: Path, *changes: tuple[str, str], ini: Path = INI) -> Path:
    """The shipped ini with other text in it, in a folder that spaces and Chinese are in the name of."""
    text = ini.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "in put 输入" / "my config.ini"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def saved(folder: Path, net: Net, *outputs: str) -> Path:
    path = folder / "net.onnx"
    onnx.save(net.model(*outputs), str(path))
    return path


def words_net() -> tuple[Net, str]:
    """Numbers of words beside a picture, numbers of 3 channels and 1 row, and a vector; the network's order is not that
    of an ini."""
    net = Net()
    words = net.input("words", 1, 7, dtype=TensorProto.INT64)
    vector = net.input("vector", 1, 5)
    image = net.input("image=1", 1, 1, 6, 11)
    line = net.input("a line", 1, 3, 1, 13)
    picked = net("ReduceMean", net("Gather", net.weights(9, 5), words), axes=[1], keepdims=0)
    parts = [net("ReduceMean", net.conv(x, c, 5), axes=[2, 3], keepdims=0) for x, c in ((image, 1), (line, 3))]
    return net, str(net("Add", net("Add", net("Add", picked, vector), parts[0]), parts[1], result="y"))


# ---- checking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PICTURES)
def test_shipped_networks_fit_their_inis(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ROOT / "SGS_Models/onnx" / name
    model, script = folder / f"{name}.onnx", folder / f"{name}.py"
    pictures = ROOT / "SGS_Models/resource" / PICTURES[name] / "test"
    ini = folder / "input_config.ini"
    out, err = told(capsys, "--input_config", ini, "-m", model, "-n", script, "-i", pictures)
    (spec,) = read_input_config(ini).inputs
    assert not err and out.startswith(f"{ini}: fits {name}.onnx, ONNX model\n")
    assert re.search(rf"^  {spec.name}  uint8  \[1,(\d+),\1,3\]  NHWC  {spec.input_format}$", out, re.MULTILINE)
    std = f"{spec.std[0]:g}"
    assert f"  {spec.name}  mean {colons(spec.mean)}  std_value {std}:{std}:{std}\n" in out
    measured = ":".join(f"{value:.6g}" for value in spec.mean)
    assert f"  {spec.name}  mean={measured}; std_value={std};\n" in out
    assert max(map(len, out.splitlines()[1:])) <= 80


def test_what_is_told_of_every_kind_of_model(capsys: pytest.CaptureFixture[str]) -> None:
    for file, kind in (
        ("digits_float.sim", "float .sim"),
        ("digits_fixed.sim", "fixed .sim"),
        ("digits.img", "offline .img"),
    ):
        out, err = told(capsys, "--input_config", INI, "-m", converted() / file, "-n", SCRIPT, "-i", PICTURE)
        assert not err
        assert out == (
            f"{INI}: fits {file}, {kind}\n"
            "\n"
            "inputs, as fixed and offline models are fed\n"
            "  images  uint8  [1,64,64,3]  NHWC  RGB\n"
            "\n"
            "normalised inside: (pixel - mean) / std_value, in the order R:G:B\n"
            "  images  mean 127.5:127.5:127.5  std_value 127.5:127.5:127.5\n"
            "\n"
            "outputs\n"
            "  logits  float32  [1,10]  real numbers\n"
            "\n"
            "preprocess scripts, on digit_000.png\n"
            "  images  norm=True   float32  [1,64,64,3]  -0.67843 .. 1\n"
            "  images  norm=False  uint8    [1,64,64,3]  41 .. 255\n"
            "\n"
            "what they subtract and divide by, measured\n"
            "  images  mean=127.5:127.5:127.5; std_value=127.5;\n"
        )


def test_an_ini_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conv = "[CONV_CONFIG]\ninput_format=ALL_INT16;\ntensor_arrays=a,b;\n"
    ini = changed(
        tmp_path,
        ("dequantizations=TRUE;", f"dequantizations=FALSE;\n{conv}"),
        ("\ninput_formats=RGB", "\ninput_formats=BGR"),
    )
    out, _ = told(capsys, "--input_config", ini)
    assert "  images  uint8  NHWC  BGR  trained on RGB\n" in out
    assert "  logits  int16  NHWC  codes: real = code * scale\n" in out
    assert out.endswith("convolutions: ALL_INT16\n\nconvolutions in 16 bits, by their first inputs\n  a\n  b\n")


NAMES = (("images;", "imagees;"), ("logits", "logit"), ("dequantizations=TRUE;", "[CONV_CONFIG]\ntensor_arrays=x9;"))


def test_all_problems_come_in_one_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ini = changed(tmp_path, *NAMES)
    names = [
        "  - [INPUT_CONFIG] inputs, line 2: 'imagees' is not an input of the model "
        "(did you mean images? its inputs: images)",
        "  - [OUTPUT_CONFIG] outputs, line 9: 'logit' is not an output of the model "
        "(did you mean logits? its outputs: logits)",
    ]
    for model in (MODEL, converted() / "digits_float.sim"):
        head, *lines = refused(capsys, "--input_config", ini, "-m", model, "-n", SCRIPT, "-i", PICTURE).splitlines()
        assert head == f"error: input_config: {ini}: 3 problems" and lines[:2] == names
        assert lines[2].startswith(
            "  - [CONV_CONFIG] tensor_arrays, line 11: no convolution has the first input 'x9' (first inputs of"
        )
    _, *lines = refused(capsys, "--input_config", ini, "-m", converted() / "digits_fixed.sim").splitlines()
    again = "(write that, or calibrate and compile it again with this one)"
    assert lines[:2] == names
    assert lines[2:] == [
        f"  - [CONV_CONFIG] tensor_arrays, line 11: x9 is not what the model was made with, nothing {again}"
    ]
    _, *lines = refused(capsys, "--input_config", ini, "-m", converted() / "digits.img").splitlines()
    assert lines == names


def test_programs_tell_all_of_it_before_a_script_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By convert of a model, and by calibrate and a plan of a float .sim, with the same lines."""
    ini = changed(tmp_path, *NAMES[1:], ("images;\n", "images;\n# a line more\n"))
    ran = tmp_path / "ran"
    own = tmp_path / "own.py"
    own.write_text(f"open({str(ran)!r}, 'w')\ndef image_preprocess(path, norm=True): ...\n", encoding="utf-8")
    samples = ("-i", PICTURE, "-n", own)
    chip = ("--input_config", ini, "--soc_version", CHIP)
    model = ("onnx", "--model_file", MODEL, "--output_file")
    float_sim = ("-m", converted() / "digits_float.sim", "-o", tmp_path / "y.sim")
    plan = tmp_path / "plan.json"
    plan.write_text(QuantPlan().to_json())
    for program, arguments in (
        (convert_tool, (*model, tmp_path / "x.sim", *chip)),
        (sgs_converter, (*model, tmp_path / "x.img", *chip, *samples)),
        (calibrator_tool, (*float_sim, *chip, *samples)),
        (calibrator_tool, (*float_sim, *chip, *samples, "--scheduler", "127.0.0.1:1")),
        (calibrator_tool, (*float_sim, *chip, "--plan", plan)),
    ):
        capsys.readouterr()
        assert program.main([str(argument) for argument in arguments]) == 2
        head, output, conv = capsys.readouterr().err.splitlines()
        assert head == f"error: input_config: {ini}: 2 problems"
        assert output.startswith("  - [OUTPUT_CONFIG] outputs, line 10: 'logit' is not an output of the model (did you")
        assert conv.startswith("  - [CONV_CONFIG] tensor_arrays, line 12: no convolution has the first input 'x9' (")
        assert not ran.exists()
    with pytest.raises(ValueError, match=r"2 problems\n.*'logit' is not an output.*\n.*first input 'x9'"):
        calibrator_custom.calibrator(converted() / "digits_float.sim", ini)


def test_an_inner_tensor_is_where_a_model_can_be_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = Net()
    model = saved(tmp_path, net, str(net("Relu", net("Neg", net.input("x", 1, 3), result="inner"), result="y")))
    ini = tmp_path / "x.ini"
    ini.write_text("[INPUT_CONFIG]\ninputs=x\ninput_formats=RAWDATA_F32_NHWC\n[OUTPUT_CONFIG]\noutputs=inner\n")
    arguments = ["onnx", "--model_file", model, "--input_config", ini, "--output_file", tmp_path / "x.sim"]
    assert convert_tool.main([*map(str, arguments), "--soc_version", CHIP]) == 2
    told_of = "(its outputs: y; --outputs inner cuts the model at its inner tensors)"
    assert f"{ini}: [OUTPUT_CONFIG] outputs, line 5: 'inner' is not an output of the model {told_of}" in (
        capsys.readouterr().err
    )


def test_a_table_beyond_all_formats_is_for_float_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = Net()
    picked = net("Gather", net.weights(65536, 2), net.input("words", 1, 3, dtype=TensorProto.INT64))
    model = saved(tmp_path, net, str(net("Relu", picked, result="y")))
    ini = tmp_path / "x.ini"
    ini.write_text("[INPUT_CONFIG]\ninputs=words\ninput_formats=RAWDATA_U16_NHWC\n[OUTPUT_CONFIG]\noutputs=y\n")
    arguments = ["onnx", "--model_file", model, "--input_config", ini, "--output_file", tmp_path / "x.sim"]
    assert convert_tool.main([*map(str, arguments), "--soc_version", CHIP]) == 0
    for file in (model, tmp_path / "x.sim"):
        error = refused(capsys, "--input_config", ini, "-m", file)
        assert "[INPUT_CONFIG] input_formats, line 3: 'words': the network looks up one of 65,536 entries" in error


def test_a_result_where_a_first_input_is_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = Net()
    first = net.conv(net.input("x", 1, 3, 6, 11), 3, 8)
    model = saved(tmp_path, net, net.conv(str(net("Relu", first, result="middle")), 8, 5))
    text = "[INPUT_CONFIG]\ninputs=x\ninput_formats=RAWDATA_F32_NHWC\n[OUTPUT_CONFIG]\noutputs=conv2\n[CONV_CONFIG]\n"
    ini = tmp_path / "x.ini"
    for name, remedy in (
        ("conv2", "the first input of the convolution of that name is middle"),
        ("midle", "did you mean middle?"),
    ):
        ini.write_text(f"{text}tensor_arrays={name}\n")
        assert f"tensor_arrays, line 7: no convolution has the first input '{name}' ({remedy})" in refused(
            capsys, "--input_config", ini, "-m", model
        )
    ini.write_text(f"{text}tensor_arrays=middle\n")
    told(capsys, "--input_config", ini, "-m", model)


def test_what_is_not_as_the_model_was_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ini = changed(tmp_path, ("127.5:127.5:127.5", "127.5:127.5:128"), ("dequantizations=TRUE", "dequantizations=FALSE"))
    for file in ("digits_fixed.sim", "digits.img"):
        error = refused(capsys, "--input_config", ini, "-m", converted() / file)
        told_of = "127.5:127.5:128 is not what the model was made with, 127.5:127.5:127.5 (write that, or calibrate and"
        assert f"[INPUT_CONFIG] mean, line 6: 'images': {told_of} compile it again with this one)" in error
        assert (
            "[OUTPUT_CONFIG] dequantizations, line 10: 'logits': FALSE is not what the model was made with, TRUE"
            in error
        )
    told(capsys, "--input_config", ini, "-m", converted() / "digits_float.sim")  # of which the ini decides


def test_numbers_have_the_digits_that_tell_them_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ini = changed(tmp_path, ("127.5:127.5:127.5", "127.5:127.5003:127.5"))
    for file in ("digits_fixed.sim", "digits.img"):
        error = refused(capsys, "--input_config", ini, "-m", converted() / file)
        assert "127.5:127.5003:127.5 is not what the model was made with, 127.5:127.5:127.5 (" in error
    assert "  images  mean 127.5:127.5003:127.5  std" in told(capsys, "--input_config", ini)[0]
    ini = changed(tmp_path, ("127.5:127.5:127.5", "127.5:127.5003"))
    assert "2 values for 3 channels of RGB: '127.5:127.5003'" in refused(capsys, "--input_config", ini)


def test_other_layouts_than_in_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ini = changed(tmp_path, ("quantizations=TRUE;\nm", "input_layouts=NCHW;\nm"))
    for file, way in (("digits_float.sim", "convert"), ("digits.img", "calibrate and compile")):
        error = refused(capsys, "--input_config", ini, "-m", converted() / file, "-n", SCRIPT, "-i", PICTURE)
        assert error.endswith(
            "[INPUT_CONFIG] input_layouts, line 5: 'images': NCHW is not what the model was made with, NHWC "
            f"(write that, or {way} it again with this one)\n"
        )
    error = refused(capsys, "--input_config", ini, "-m", MODEL, "-n", SCRIPT, "-i", PICTURE)
    assert error.count("returned shape [1, 64, 64, 3], the model needs [1, 3, 64, 64] (it returns NHWC where") == 2


def test_integers_that_the_network_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = saved(tmp_path, *words_net())
    text = told(capsys, "--init", "-m", model)[0]
    ini = tmp_path / "x.ini"
    ini.write_text(
        text.replace("RAWDATA_S16_NHWC", "RAWDATA_F32_NHWC").replace("GRAY", "RGB").replace("mean=0", "mean=0:0:0")
    )
    error = refused(capsys, "--input_config", ini, "-m", model)
    assert (
        "2 problems" in error
        and "'image=1': RGB needs 3 channels, the model has 1 in [1,6,11,1] (NHWC) (write GRAY)" in error
    )
    remedy = "(set training_input_formats and input_formats to RAWDATA_S16"
    assert f"'words': RAWDATA_F32_NHWC, and the network reads int32 here {remedy}" in error


# ---- scripts ---------------------------------------------------------------------------------------------------------

CLEAN = """
import cv2, numpy as np
def image_preprocess(path, norm=True):
    image = cv2.resize(cv2.imread(path), (64, 64)){order}
    return ((image - np.array({mean})) / np.array({std}) if norm else image)[np.newaxis]{rest}
"""


def script(
    folder: Path,
    *,
    order: str = "[..., ::-1]",
    mean: Sequence[float] = (0,),
    std: Sequence[float] = (1,),
    rest: str = "",
) -> Path:
    path = folder / "script.py"
    path.write_text(CLEAN.format(order=order, mean=list(mean), std=list(std), rest=rest))
    return path


def colourful(folder: Path) -> Path:
    """A picture that is more red than green, and more green than blue."""
    noise = np.random.default_rng(3).integers(-60, 60, (40, 50, 3))
    path = folder / "彩色.png"
    assert cv2.imwrite(str(path), np.clip(noise + (70, 120, 190), 0, 255).astype(np.uint8))
    return path


def test_what_scripts_print_is_no_part_of_the_ini(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = script(tmp_path)
    own.write_text(own.read_text().replace("    image =", "    print('reading', path)\n    image ="))
    out, err = told(capsys, "--init", "-m", MODEL, "-n", own, "-i", colourful(tmp_path))
    assert out.startswith("# input_config.ini of") and "reading" not in out and "reading" in err
    (tmp_path / "x.ini").write_text(out, encoding="utf-8")
    told(capsys, "--input_config", tmp_path / "x.ini", "-m", MODEL, "-n", own, "-i", colourful(tmp_path))


def test_mean_and_std_that_the_script_does_not_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = script(tmp_path, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    error = refused(capsys, "--input_config", INI, "-m", MODEL, "-n", own, "-i", colourful(tmp_path))
    assert "line 6: mean/std_value disagree with the preprocess script: 'images': channel R: (pixel - mean 127" in error
    assert error.endswith("(the script does mean=123.675:116.28:103.53; std_value=58.395:57.12:57.375;)\n")
    pasted = (
        ("mean=127.5:127.5:127.5;", "mean=123.675:116.28:103.53;"),
        ("std_value=127.5;", "std_value=58.395:57.12:57.375;"),
    )
    told(capsys, "--input_config", changed(tmp_path, *pasted), "-m", MODEL, "-n", own, "-i", colourful(tmp_path))


def test_colours_in_another_order_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = script(tmp_path, order="", mean=(127.5,), std=(127.5,))
    _, err = told(capsys, "--input_config", INI, "-m", MODEL, "-n", own, "-i", colourful(tmp_path))
    assert err == (
        "warning: the picture's colours come from the script in the order BGR, "
        "training_input_formats of images says RGB\n"
    )


def test_scripts_that_fail_are_told_beside_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = script(tmp_path, rest=" + (np.nan if norm else 0)")
    ini = changed(tmp_path, ("dequantizations=TRUE;", "[CONV_CONFIG]\ntensor_arrays=x9;"))
    error = refused(capsys, "--input_config", ini, "-m", MODEL, "-n", own, "-i", PICTURE)
    assert "2 problems" in error and "first input 'x9'" in error and "values that are not finite" in error


VALUES = [
    ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    ((127.0, 104.0, 117.0), (128.0, 1.0, 256.0)),
    ((33.318,), (1.0,)),
    ((-4.25,), (0.5,)),
]


@pytest.mark.parametrize(("mean", "std"), VALUES)
@pytest.mark.parametrize("axis", [-1, -3])
def test_what_a_script_does_is_measured(mean: Sequence[float], std: Sequence[float], axis: int) -> None:
    plain = np.random.default_rng(1).integers(0, 256, (1, 23, 31, len(mean))).astype(np.uint8)
    floats = ((plain - np.array(mean)) / np.array(std)).astype(np.float32)
    arrays = [np.moveaxis(array, -1, axis) for array in (plain, floats)]
    assert measured_normalisation(*arrays, axis) == (mean, std)


def test_what_cannot_be_measured() -> None:
    plain = np.random.default_rng(1).integers(0, 256, (1, 23, 31, 3)).astype(np.uint8)
    grey = plain.copy()
    grey[..., 1] = 7
    curved: Array = (plain / 255.0) ** 2.2
    assert measured_normalisation(grey, grey / 255, -1) is None
    assert measured_normalisation(plain, curved, -1) is None
    assert measured_normalisation(plain, 255.0 - plain, -1) is None


def test_pictures_that_are_resized_in_float_for_one_and_in_bytes_for_the_other() -> None:
    picture = np.random.default_rng(5).integers(0, 256, (80, 90, 3)).astype(np.uint8)
    plain = cv2.resize(picture, (64, 48))
    floats = (cv2.resize(picture.astype(np.float32), (64, 48)) - 127.5) / 127.5
    found = measured_normalisation(plain, floats, -1)
    assert found is not None
    for values in found:
        assert np.abs(np.array(values) - 127.5).max() < 0.1


def test_the_order_of_colours(tmp_path: Path) -> None:
    picture = cv2.imread(str(colourful(tmp_path)))
    assert picture is not None
    cropped = picture[5:, 7:][np.newaxis]
    assert channel_order(picture, cropped, -1) == "BGR"
    assert channel_order(picture, np.moveaxis(cropped[..., ::-1], -1, 1), 1) == "RGB"
    grey = np.repeat(picture[..., :1], 3, axis=-1)
    assert channel_order(grey, grey, -1) is None
    assert channel_order(picture, grey, -1) is None


@pytest.mark.parametrize("border", [0, 114, 255])
def test_the_order_of_colours_of_a_picture_with_borders(tmp_path: Path, border: int) -> None:
    picture = cv2.imread(str(colourful(tmp_path)))
    assert picture is not None
    height, width, _ = picture.shape
    boxed = np.full((1, 2 * height, width + 5, 3), border, np.uint8)
    boxed[0, :height, :width] = picture
    assert channel_order(picture, boxed, -1) == "BGR"
    assert channel_order(picture, boxed[..., ::-1], -1) == "RGB"


# ---- drafting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PICTURES)
def test_drafts_of_shipped_networks_say_what_their_inis_say(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ROOT / "SGS_Models/onnx" / name
    pictures = ROOT / "SGS_Models/resource" / PICTURES[name] / "test"
    arguments = "--init", "-m", folder / f"{name}.onnx", "-n", folder / f"{name}.py", "-i", pictures
    draft = tmp_path / "draft.ini"
    out, _ = told(capsys, *arguments, "-o", draft)
    assert out == f"Configuration at: {draft}\n"
    mine, shipped = read_input_config(draft), read_input_config(folder / "input_config.ini")
    measured = tuple(replace(s, mean=tuple(float(f"{value:g}") for value in s.mean)) for s in shipped.inputs)
    assert (mine.inputs, mine.conv) == (measured, shipped.conv)
    assert set(mine.outputs) == set(shipped.outputs)


@pytest.mark.parametrize("path", NETWORKS, ids=[path.stem for path in NETWORKS])
def test_drafts_of_public_networks_fit_them(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draft = tmp_path / "draft.ini"
    told(capsys, "--init", "-m", path, "-o", draft)
    out, err = told(capsys, "--input_config", draft, "-m", path)
    assert f"fits {path.name}, ONNX model" in out and "leaves out" not in err and "cannot be used" not in err


def test_a_draft_of_several_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = told(capsys, "--init", "-m", saved(tmp_path, *words_net()))
    assert out == (
        "# input_config.ini of net.onnx\n"
        "\n"
        "[INPUT_CONFIG]\n"
        'inputs="image=1",words,vector,"a line";\n'
        "# CHECK: taken for pictures, as they have 3 channels or 1: image=1\n"
        "# (what is none: RAWDATA_F32_NHWC, behind the pictures, without mean and std_value)\n"
        "# words: whole numbers (int32 in the network), fed as they are\n"
        "training_input_formats=GRAY,RAWDATA_S16_NHWC,RAWDATA_F32_NHWC,RAWDATA_F32_NHWC;\n"
        "input_formats=GRAY,RAWDATA_S16_NHWC,RAWDATA_F32_NHWC,RAWDATA_F32_NHWC;\n"
        "quantizations=TRUE,TRUE,TRUE,TRUE;\n"
        "# CHECK: nothing is done to image=1 here; (pixel - mean) / std_value, in\n"
        "# grey levels 0..255 and the order R:G:B, must be what the preprocess script does\n"
        "mean=0;\n"
        "std_value=1;\n"
        "\n"
        "[OUTPUT_CONFIG]\n"
        "outputs=y;\n"
        "dequantizations=TRUE;\n"
    )


def test_a_draft_takes_layout_and_colours_from_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = script(tmp_path, order="", mean=(104, 117, 123), std=(2, 4, 8), rest=".transpose(0, 3, 1, 2)")
    out, err = told(capsys, "--init", "-m", MODEL, "-n", own, "-i", colourful(tmp_path))
    (spec,) = parse_input_config(out, Path("draft.ini")).inputs
    assert (spec.training_format, spec.input_format, spec.layout) == ("BGR", "BGR", "NCHW")
    assert (spec.mean, spec.std) == ((123, 117, 104), (8, 4, 2)) and not err


def test_names_of_any_kind_come_back(tmp_path: Path) -> None:
    names = [
        "a b",
        "x,y",
        "c;d",
        'say "no"',
        "it's",
        "k=v",
        "，",
        "名",
        "#1",
        "'q'",
        *(f"tensor_{i:03}" for i in range(40)),
    ]
    outputs = [Terminal(name, (1, 5), "float32") for name in names] + [Terminal("labels", (1,), "int64")]
    inputs = [
        Terminal("x", (1, 3, 6, 7), "float32", "NCHW"),
        Terminal("ids", (1, 4), "int32", entries=40000, straight=True),
    ]
    measured = {"x": Measured((1.0, 2.0, 3.0), (4.0, 4.0, 4.0), "RGB")}
    text = Draft("n.onnx", inputs, outputs, measured).text()
    config = parse_input_config(text, tmp_path / "x.ini")
    assert [output.name for output in config.outputs] == [*names, "labels"]
    assert [(spec.input_format, spec.mean, spec.std) for spec in config.inputs] == [
        ("RGB", (1, 2, 3), (4, 4, 4)),
        ("RAWDATA_U16_NHWC", (), ()),
    ]
    assert max(map(len, text.splitlines())) <= 120


def test_a_network_that_cannot_be_converted_still_gets_its_ini(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = Net()
    x = net("Frobnicate", net.input("x", 1, 3, 6, 11), domain="somebody")
    model = saved(tmp_path, net, str(net("Relu", x, result="y")))
    out, err = told(capsys, "--init", "-m", model, "--skip_simplify")
    assert err == f"warning: the network itself cannot be used yet, for 1 reason: show_model_info.py {model}\n"
    assert "inputs=x;" in out and "training_input_formats=RGB;" in out and "outputs=y;" in out
    ini = tmp_path / "x.ini"
    ini.write_text(out.replace("inputs=x", "inputs=xx").replace("outputs=y", "outputs=z"))
    error = refused(capsys, "--input_config", ini, "-m", model, "--skip_simplify")
    assert "'xx' is not an input" in error and "'z' is not an output of the model (its outputs: y)" in error


def test_a_file_is_overwritten_on_request_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "mine.ini"
    target.write_text("precious")
    error = refused(capsys, "--init", "-m", MODEL, "-o", target)
    assert "is there already (name another file, or add --overwrite)" in error and target.read_text() == "precious"
    told(capsys, "--init", "-m", MODEL, "-o", target, "--overwrite")
    assert read_input_config(target).inputs[0].name == "images"


def test_drafts_of_what_is_converted_already(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = script(tmp_path, mean=(127.5,), std=(127.5,))
    arguments = "--init", "-n", own, "-i", colourful(tmp_path), "-m"
    out, _ = told(capsys, *arguments, converted() / "digits_float.sim")
    assert parse_input_config(out, INI).inputs == read_input_config(INI).inputs
    for file, kind in (("digits_fixed.sim", "fixed .sim"), ("digits.img", "offline .img")):
        error = refused(capsys, *arguments, converted() / file)
        assert (
            f"{file}: holds already what it was made with, as every {kind} does (--init takes the network as it was"
            in error
        )


def test_a_draft_of_a_float_sim_in_nchw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = Net()
    model = saved(tmp_path, net, net.conv(net.input("x", 1, 3, 6, 11), 3, 8))
    ini, sim = tmp_path / "x.ini", tmp_path / "x_float.sim"
    layouts = "input_layouts=NCHW\n[OUTPUT_CONFIG]\noutput_layouts=NCHW\noutputs=conv0\n"
    ini.write_text(f"[INPUT_CONFIG]\ninputs=x\ninput_formats=BGR\nmean=1:2:3\nstd_value=4\n{layouts}")
    arguments = ["onnx", "--model_file", model, "--input_config", ini, "--output_file", sim, "--soc_version", CHIP]
    assert convert_tool.main([str(argument) for argument in arguments]) == 0
    config = parse_input_config(told(capsys, "--init", "-m", sim)[0], ini)
    assert (config.inputs[0].layout, config.outputs[0].layout) == ("NCHW", "NCHW")
    assert "  x  uint8  [1,3,6,11]  NCHW  BGR\n" in told(capsys, "--input_config", ini, "-m", sim)[0]


# (arguments, part of the message)
MISUSES: list[tuple[list[Any], str]] = [
    ([], "either --input_config INI to check, or --init to write one"),
    (["--init"], "--init needs the network: -m MODEL"),
    (["--init", "--input_config", INI, "-m", MODEL], "either --input_config INI to check, or --init to write one"),
    (["--input_config", INI, "-n", SCRIPT, "-i", PICTURE], "-n needs the network: -m MODEL"),
    (["--input_config", INI, "-m", MODEL, "-n", SCRIPT], "-n and -i go together"),
    (["--input_config", INI, "-m", MODEL, "-o", "x.ini"], "--output_file and --overwrite go with --init"),
    (["--input_config", INI, "--input_shapes", "1,3"], "--input_shapes needs the network: -m MODEL"),
    (["--input_config", INI, "-m", "x.sim", "--input_shapes", "1,3"], "--input_shapes goes with an .onnx"),
    (["tflit", "--input_config", INI], "there is no platform 'tflit' (did you mean tflite?)"),
    (["onnx", "--input_config", INI], "the following arguments are required: --model_file"),
    (["tflite", "--model_file", "x", "--init", "--skip_simplify"], "unknown option --skip_simplify"),
    (["--init", "-m", "x.tflite"], "x.tflite: No such file or directory"),
    (["--init", "-m", "x.tflite", "--skip_simplify"], "--skip_simplify does not go with models of tflite"),
    (["--input_config", INI, "-m", INI], "models that can be read are .onnx, .tflite, "),
    (["--input_config", "none.ini"], "none.ini: cannot be read: No such file"),
    (["--input_confg", INI], "unknown option --input_confg (did you mean --input_config?)"),
]


@pytest.mark.parametrize(("arguments", "part"), MISUSES, ids=[str(i) for i in range(len(MISUSES))])
def test_misuse(arguments: list[Any], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert part in refused(capsys, *arguments)


def test_the_launcher(tmp_path: Path) -> None:
    ini = changed(tmp_path, ("127.5:127.5:127.5", "127.5：127.5：127.5"))
    done = launch("DumpDebug/check_input_config.py", "--input_config", ini, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: input_config: {ini}: [INPUT_CONFIG] mean, line 6: '127.5：127.5：127.5' holds the full-width '：' "
        "(write the ASCII ':'; a name that holds it needs quotes)\n"
    )


def test_free_dimensions_do_not_go_with_platforms_that_cut_their_networks_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cutting = replace(platform_named("tflite", stage=""), takes_surgery=True)
    monkeypatch.setattr(networks, "platform_of", lambda path, *, stage: cutting)
    said = refused(capsys, "--init", "-m", tmp_path / "x.tflite", "-f", "n:1")
    assert "--free_dim_param does not go with models of tflite (leave it out)" in said


@pytest.mark.parametrize("named", [True, False], ids=["platform named", "by its suffix"])
def test_a_model_that_never_becomes_onnx(named: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = TfliteFile()
    file.tensor("picture", (1, 6, 10, 3))
    file.tensor("soft", (1, 6, 10, 3))
    file.operator("SOFTMAX", ["picture"], ["soft"], "SoftmaxOptions", {"beta": 1.0})
    path, ini = tmp_path / "net.tflite", tmp_path / "net.ini"
    path.write_bytes(file.bytes(["picture"], ["soft"]))
    model = ["tflite", "--model_file", path] if named else ["-m", path]
    told(capsys, *model, "--init", "-o", ini)
    assert [spec.input_format for spec in read_input_config(ini).inputs] == ["RGB"]
    assert "fits net.tflite, TFLite model" in told(capsys, *model, "--input_config", ini)[0]
    ini.write_text(ini.read_text().replace("outputs=soft", "outputs=sof"))
    assert "did you mean soft?" in refused(capsys, *model, "--input_config", ini)
    assert show_model_info.main([str(word) for word in model if word != "-m"]) == 0
    shown = capsys.readouterr().out
    assert "kind            TFLite model" in shown and "1  SOFTMAX" in shown


@pytest.mark.parametrize("factor", [1, 2])
def test_a_model_is_compared_with_its_framework(
    factor: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    net = Net()
    model = saved(tmp_path, net, net("Relu", net.input("x", 1, 3, 6, 11), result="y"))
    ini = tmp_path / "x.ini"
    told(capsys, "--init", "-m", model, "-o", ini)
    row = platform_named("onnx", stage="")
    judge = Judge("Torch", lambda feeds: {"y": np.maximum(feeds["x"], 0) * factor})
    judged = replace(row, load=lambda values, asked: replace(row.load(values, asked), judge=judge))
    monkeypatch.setattr(pipelines, "platform_named", lambda name, *, stage: judged)
    out, err = told(capsys, "--input_config", ini, "-m", model)
    shown = told_by_show(capsys, model)
    agrees = "verify: output 'y' is 0.0e+00 of its range from Torch's"
    assert (agrees in out, agrees in shown) == (factor == 1, factor == 1)
    assert ("the network itself cannot be used yet" in err) == (factor == 2)
    assert ("ConvertTool: no problem found" in shown) == (factor == 1)


def told_by_show(capsys: pytest.CaptureFixture[str], model: Path) -> str:
    assert show_model_info.main([str(model)]) == 0
    return capsys.readouterr().out
