"""input_config.ini: what is read, what is refused, and that every problem of a file is named at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sgs.config import ini
from sgs.config.fit import check_against_names
from sgs.config.formats import INPUT_FORMATS, InputSpec, OutputSpec
from sgs.config.input_config import KEYS, ConvSpec, InputConfig, read_input_config
from sgs.errors import Problems, UserError

PICTURE = {"inputs": "data", "input_formats": "RGB", "mean": "1:2:3", "std_value": "4"}
OUTPUTS = {"outputs": "prob"}


def text_of(inputs: dict[str, str | None], outputs: dict[str, str | None], conv: dict[str, str | None]) -> str:
    """An ini text of the three sections; a value of None leaves its key out, a section without keys is left out."""
    sections = {"INPUT_CONFIG": inputs, "OUTPUT_CONFIG": outputs, "CONV_CONFIG": conv}
    lines = []
    for name, keys in sections.items():
        if keys:
            lines += [f"[{name}]", *(f"{key}={value};" for key, value in keys.items() if value is not None)]
    return "\n".join(lines) + "\n"


def read(folder: Path, text: str | bytes) -> InputConfig:
    path = folder / "input config 输入.ini"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_input_config(path)


def refusal(folder: Path, text: str | bytes) -> str:
    with pytest.raises(UserError) as caught:
        read(folder, text)
    assert caught.value.exit_code == 2
    assert caught.value.stage == "input_config"
    assert str(folder) in str(caught.value.file)
    return caught.value.render()


MANUAL = """
[INPUT_CONFIG]
inputs= data; # 输入节点名称
training_input_formats=RGB; # a comment
input_formats=BGR;
quantizations=TRUE;
mean=123.675:116.28:103.53; # R:G:B
std_value = 58.395 : 57.12 : 57.375;
[OUTPUT_CONFIG]
outputs= prob;
dequantizations=FALSE;
[CONV_CONFIG] # optional
tensor_arrays=conv1-1,conv2-1; # two layers
"""


# ---- what is read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"], ids=["unix", "windows", "mac"])
def test_the_manuals_example(tmp_path: Path, bom: bytes, newline: bytes) -> None:
    config = read(tmp_path, bom + MANUAL.encode().replace(b"\n", newline))
    assert config.inputs == (
        InputSpec("data", "RGB", "BGR", True, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), 1, 1, "NHWC"),
    )
    assert config.outputs == (OutputSpec("prob", False, "NHWC", "RAWDATA_S16_NHWC"),)
    assert config.conv == ConvSpec(None, ("conv1-1", "conv2-1"))
    assert config.text.replace("\r\n", "\n").replace("\r", "\n") == MANUAL
    assert config.inputs[0].in_order(config.inputs[0].mean, "BGR") == (103.53, 116.28, 123.675)


def test_several_inputs_with_raw_data_last(tmp_path: Path) -> None:
    keys = {
        "inputs": "a, 'b b', \"c;d\"",
        "training_input_formats": "RGB,GRAY,RAWDATA_F32_NHWC",
        "input_formats": "YUV_NV12,GRAY,RAWDATA_F32_NHWC",
        "quantizations": "TRUE,true,false",
        "mean": "127.5:127.5:127.5,33.318",
        "std_value": "255.,1e0",
        "input_width_alignment": "16,4",
        "input_layouts": "NHWC,NCHW,NHWC",
    }
    a, b, c = read(tmp_path, text_of(keys, {"outputs": "x,y"}, {})).inputs
    assert a == InputSpec("a", "RGB", "YUV_NV12", True, (127.5,) * 3, (255.0,) * 3, 16, 2, "NHWC")
    assert b == InputSpec("b b", "GRAY", "GRAY", True, (33.318,), (1.0,), 4, 1, "NCHW")
    assert c == InputSpec("c;d", "RAWDATA_F32_NHWC", "RAWDATA_F32_NHWC", False, (), (), 1, 1, "NHWC")
    assert (a.channels, b.channels, c.channels) == (3, 1, 0)
    assert (a.channel_axis, b.channel_axis) == (3, 1)


def test_defaults(tmp_path: Path) -> None:
    config = read(tmp_path, text_of(PICTURE, {"outputs": "x,y", "dequantizations": "TRUE,FALSE"}, {}))
    assert config.inputs == (InputSpec("data", "RGB", "RGB", True, (1, 2, 3), (4, 4, 4)),)
    assert [output.format for output in config.outputs] == ["RAWDATA_F32_NHWC", "RAWDATA_S16_NHWC"]
    assert config.conv == ConvSpec()


def test_mean_by_colour(tmp_path: Path) -> None:
    colours = {"mean": None, "mean_red": "1,10", "mean_green": "2,20", "mean_blue": "3,30"}
    keys = {**PICTURE, "inputs": "a,b", "input_formats": "RGB,GRAY", "std_value": "1,1", **colours}
    a, b = read(tmp_path, text_of(keys, OUTPUTS, {})).inputs
    assert (a.mean, b.mean) == ((1, 2, 3), (10,))


def test_a_single_zero_mean_is_for_all_channels(tmp_path: Path) -> None:
    assert read(tmp_path, text_of({**PICTURE, "mean": "0"}, OUTPUTS, {})).inputs[0].mean == (0, 0, 0)


def test_a_list_goes_on_after_a_comma(tmp_path: Path) -> None:
    text = text_of(PICTURE, {}, {}) + "[OUTPUT_CONFIG]\noutputs = a, # first\n  b,\n  c;\n"
    assert [output.name for output in read(tmp_path, text).outputs] == ["a", "b", "c"]


@pytest.mark.parametrize(("fed", "alignment"), [(name, row.alignment) for name, row in INPUT_FORMATS.items()])
def test_every_format_has_its_default_alignment(tmp_path: Path, fed: str, alignment: tuple[int, int]) -> None:
    for training in INPUT_FORMATS[fed].trained_as:
        raw = training.startswith("RAWDATA")
        mean = None if raw else "0"
        keys = {"inputs": "a", "training_input_formats": training, "input_formats": fed, "mean": mean}
        (spec,) = read(tmp_path, text_of({**keys, "std_value": None if raw else "1"}, OUTPUTS, {})).inputs
        assert (spec.width_alignment, spec.height_alignment) == alignment


@pytest.mark.parametrize("way", ["ALL_UINT8", "ALL_INT16", "CONV2D_INT16", "DEPTHWISE_INT16"])
def test_conv_formats(tmp_path: Path, way: str) -> None:
    assert read(tmp_path, text_of(PICTURE, OUTPUTS, {"input_format": way})).conv.input_format == way


def test_shipped_configurations_are_read() -> None:
    files = sorted((Path(__file__).parents[1] / "SGS_Models").glob("*/*/input_config.ini"))
    assert files
    for file in files:
        read_input_config(file)


# ---- what is refused -------------------------------------------------------------------------------------------------

Keys = dict[str, str | None]
# (changes of INPUT_CONFIG, of OUTPUT_CONFIG, of CONV_CONFIG, parts of the message)
BAD: list[tuple[Keys, Keys, Keys, list[str]]] = [
    ({"inputs": None}, {}, {}, ["[INPUT_CONFIG] inputs", "missing"]),
    ({"inputs": "a,,b"}, {}, {}, ["[INPUT_CONFIG] inputs, line 2", "empty item beside its commas: 'a,,b'"]),
    ({"inputs": ""}, {}, {}, ["has no value"]),
    ({"inputs": "a,a"}, {}, {}, ["names a tensor twice: a"]),
    ({"inputs": '"a'}, {}, {}, ["line 2", "quote is not closed"]),
    ({"inputs": "a，b"}, {}, {}, ["[INPUT_CONFIG] inputs, line 2", "'a，b' holds the full-width '，'", "ASCII ','"]),
    ({"mean": "1：2：3"}, {}, {}, ["[INPUT_CONFIG] mean, line 4", "full-width '：' (write the ASCII ':'"]),
    ({"std_value": "1；"}, {}, {}, ["std_value, line 5", "'1；' holds the full-width '；' (write the ASCII ';'"]),
    ({"inputs": "“data”"}, {}, {}, ["full-width '“' (write the ASCII '\"'; a name that holds it needs quotes"]),
    ({"inputs": "data,"}, {}, {}, ["empty item beside its commas: 'data,' (delete the comma that is too many)"]),
    ({"inputs": "n" * 2049}, {}, {}, ["2049 characters", "2048"]),
    ({"imputs": "a"}, {}, {}, ["[INPUT_CONFIG] imputs, line 6", "unknown key", "did you mean inputs?"]),
    ({"std": "1"}, {}, {}, ["unknown key", "did you mean std_value?"]),
    ({"input_formats": None}, {}, {}, ["input_formats", "missing", "YUV_NV12"]),
    ({"input_formats": "RGX"}, {}, {}, ["line 3", "'RGX' is not one of RGB, BGR"]),
    ({"input_formats": "RGB,RGB"}, {}, {}, ["2 given for 1 input"]),
    ({"input_formats": "RGBA"}, {}, {}, ["training_input_formats", "no network is trained on RGBA", "RGB, BGR"]),
    ({"training_input_formats": "YUV_NV12"}, {}, {}, ["'YUV_NV12' is not one of RGB, BGR, GRAY"]),
    ({"training_input_formats": "GRAY", "mean": "1"}, {}, {}, ["RGB cannot be fed", "GRAY allows YUV_NV12, GRAY"]),
    ({"training_input_formats": "RAWDATA_F32_NHWC"}, {}, {}, ["RGB cannot be fed", "RAWDATA_F32_NHWC allows RAW"]),
    ({"quantizations": "YES"}, {}, {}, ["'YES' is not TRUE or FALSE"]),
    (
        {"quantizations": "FALSE"},
        *({}, {}, ["quantizations, line 6", "always fed as UINT8: data", "write TRUE, or", "RAWDATA_F32_NHWC"]),
    ),
    (
        {
            "inputs": "a,b",
            "input_formats": "GRAY,GRAY",
            "mean": "0,0",
            "std_value": "1,1",
            "quantizations": "TRUE,FALSE",
        },
        *({}, {}, ["always fed as UINT8: b"]),
    ),
    ({"mean": None}, {}, {}, ["[INPUT_CONFIG] mean", "missing", "0:0:0"]),
    ({"mean": "1:2"}, {}, {}, ["[INPUT_CONFIG] mean, line 4", "2 values for 3 channels of RGB"]),
    ({"mean": "5"}, {}, {}, ["'data' has 1 value for 3 channels of RGB: '5'", "write 5:5:5"]),
    ({"mean": "1,2,3"}, {}, {}, ["3 given for 1 picture input: '1,2,3'", "write 1:2:3; commas separate inputs"]),
    ({"mean": "1:x:3"}, {}, {}, ["'x' is not a number"]),
    ({"mean": "1:nan:3"}, {}, {}, ["'nan' is not a finite number"]),
    ({"mean": "1:2:inf"}, {}, {}, ["'inf' is not a finite number (write one like 127.5)"]),
    ({"mean": "1;2;3"}, {}, {}, ["'data' has 1 value for 3 channels of RGB: '1' (write 1:1:1; commas separate"]),
    ({"std_value": "1,2,3"}, {}, {}, ["3 given for 1 picture input: '1,2,3' (write 1:2:3; commas separate inputs"]),
    ({"input_formats": "GRAY"}, {}, {}, ["'data' has 3 values for 1 channel of GRAY: '1:2:3' (write one value"]),
    (
        {"inputs": "a,b", "input_formats": "RGB,GRAY", "mean": "x:1:y,z", "std_value": "1,-2"},
        *({}, {}, ["3 problems", "'x' is not a number", "'z' is not a number", "'-2' is not above 0"]),
    ),
    ({"mean_red": "1"}, {}, {}, ["mean_red", "is given beside mean"]),
    ({"mean": None, "mean_red": "1", "mean_green": "1"}, {}, {}, ["mean_blue", "missing", "belong together"]),
    ({"std_value": None}, {}, {}, ["std_value", "missing"]),
    ({"std_value": "0"}, {}, {}, ["std_value, line 5", "'0' is not above 0", "write 1"]),
    ({"std_value": "0.0:1:2"}, {}, {}, ["'0.0:1:2' is not above 0"]),
    ({"std_value": "1:2"}, {}, {}, ["2 values for 3 channels"]),
    ({"input_width_alignment": "0"}, {}, {}, ["'0' is not a whole number above 0"]),
    ({"input_width_alignment": "1.5"}, {}, {}, ["'1.5' is not a whole number"]),
    ({"input_width_alignment": "1,1"}, {}, {}, ["2 given for 1 input"]),
    (
        {"training_input_formats": "RGB", "input_formats": "YUV_NV12", "input_height_alignment": "3"},
        *({}, {}, ["YUV_NV12 needs a multiple of 2, not 3"]),
    ),
    (
        {"training_input_formats": "RGB", "input_formats": "RGBA", "input_layouts": "NCHW"},
        *({}, {}, ["RGBA has no layout NCHW"]),
    ),
    ({"input_layouts": "HWC"}, {}, {}, ["'HWC' is not one of NHWC, NCHW"]),
    (
        {"inputs": "a,b", "input_formats": "RAWDATA_F32_NHWC,RGB"},
        *({}, {}, ["RAWDATA inputs must come last: a (write inputs=b,a and all other keys in that order)"]),
    ),
    (
        {"inputs": "a,b", "input_formats": "RGB,RAWDATA_F32_NHWC", "mean": "0,0", "std_value": "1"},
        *({}, {}, ["2 given for 1 picture input (RAWDATA inputs have none)"]),
    ),
    (
        {"input_formats": "RAWDATA_S16_NHWC"},
        *({}, {}, ["2 problems", "mean, line 4", "std_value, line 5", "have none, given is '1:2:3' (delete the line)"]),
    ),
    (
        {"input_formats": "RAWDATA_F32_NHWC", "mean": None, "std_value": None, "mean_red": "7"},
        *({}, {}, ["[INPUT_CONFIG] mean_red, line 4", "RAWDATA inputs have none, given is '7'"]),
    ),
    ({}, {"outputs": None, "dequantizations": "TRUE"}, {}, ["[OUTPUT_CONFIG] outputs", "missing"]),
    ({}, {"dequantizations": "TRUE,TRUE"}, {}, ["2 given for 1 output"]),
    ({}, {"output_layouts": "CHW"}, {}, ["'CHW' is not one of"]),
    ({}, {"output_formats": "RGB"}, {}, ["'RGB' is not one of RAWDATA_F32_NHWC"]),
    (
        {},
        {"dequantizations": "FALSE", "output_formats": "RAWDATA_F32_NHWC"},
        *({}, ["RAWDATA_F32_NHWC is float32, which needs dequantizations TRUE"]),
    ),
    ({}, {}, {"input_format": "ALL_INT8"}, ["'ALL_INT8' is not one of ALL_UINT8"]),
    ({}, {}, {"input_format": "ALL_UINT8,ALL_INT16"}, ["2 given for all convolutions together"]),
    ({}, {}, {"input_formats": "RGB"}, ["did you mean input_format?; input_formats is for [INPUT_CONFIG]"]),
    ({"outputs": "x"}, {}, {}, ["[INPUT_CONFIG] outputs, line 6", "unknown key", "outputs is for [OUTPUT_CONFIG]"]),
]


@pytest.mark.parametrize(("inputs", "outputs", "conv", "parts"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_values_are_refused(tmp_path: Path, inputs: Keys, outputs: Keys, conv: Keys, parts: list[str]) -> None:
    text = text_of({**PICTURE, **inputs}, {**OUTPUTS, **outputs}, conv)
    message = refusal(tmp_path, text)
    assert [part for part in parts if part not in message] == [], message
    for problem in problems_of(tmp_path, text):
        check_facts(problem, text)


def problems_of(folder: Path, text: str) -> tuple[UserError, ...]:
    with pytest.raises(UserError) as caught:
        read(folder, text)
    return caught.value.problems if isinstance(caught.value, Problems) else (caught.value,)


def check_facts(problem: UserError, text: str) -> None:
    """A problem names section, key, line where the key is there, the value that is written there, and a remedy."""
    found = re.fullmatch(r"\[(\w+)\] (\w+)(?:, line (\d+))?", problem.node or "")
    assert found and problem.remedy, problem.render()
    lines = text.splitlines()
    if found[3] is None:
        assert not any(line.startswith(f"{found[2]}=") for line in lines), problem.render()
        return
    key, equals, value = lines[int(found[3]) - 1].rstrip(";").partition("=")
    if problem.reason.startswith("is missing"):
        assert (key, equals) == (f"[{found[1]}]", "") or "trained on" in problem.reason, problem.render()
    else:
        words = [value[:50], *re.split("[,:;]", value)] if value else ["has no value"]
        words += [key] if problem.reason == "unknown key" else []
        assert key == found[2] and any(word in problem.render() for word in words if word), problem.render()


GOOD = text_of(PICTURE, OUTPUTS, {})
# (whole file, parts of the message)
BAD_FILES: list[tuple[str | bytes, list[str]]] = [
    ("", ["2 problems", "[INPUT_CONFIG]: the section is missing (it holds inputs, input_formats, mean, std_value)"]),
    ("inputs=a\n" + GOOD, ["[INPUT_CONFIG] inputs, line 1", "before the first [SECTION]", "put the [SECTION]"]),
    (GOOD + "hello\n", ["line 8: 'hello' is neither [SECTION] nor key = value (begin comments with #; end a line"]),
    (GOOD + "；说明 a = b\n", ["line 8", "full-width '；' (write the ASCII ';'"]),
    (GOOD + "说明\n", ["line 8", "'说明' is neither"]),
    (
        GOOD.replace("outputs=", "outputs＝"),
        ["[OUTPUT_CONFIG] outputs, line 7: 'outputs＝prob;' holds the"],
    ),
    (GOOD.replace("[OUT", "［OUT"), ["line 6: '［OUTPUT_CONFIG]' holds the full-width '［' (write the ASCII '['"]),
    (
        GOOD.replace("OUTPUT_CONFIG]", "OUTPUT_CONFIG"),
        ["line 6: '[OUTPUT_CONFIG' is not closed (write ["],
    ),
    (GOOD.replace("[OUTPUT_CONFIG]\n", ""), ["2 problems", "unknown key", "[OUTPUT_CONFIG]: the section is missing"]),
    (
        GOOD.replace("prob;", "a,\n  b\n  c"),
        ["line 9: 'c' is neither", "with a comma where its list goes on"],
    ),
    (GOOD.replace("prob;", "a,\n  'b;"), ["[OUTPUT_CONFIG] outputs, line 8: ''b;': a quote is not closed"]),
    (GOOD + "[INPUT_CONFG]\n", ["[INPUT_CONFG], line 8", "unknown section", "did you mean INPUT_CONFIG?"]),
    (GOOD + "[OUTPUT_CONFIG]\n", ["line 8", "a second time", "line 6"]),
    (
        GOOD.replace("prob;", "prob,data;"),
        ["[OUTPUT_CONFIG] outputs, line 7", "what is an input: data", "leave it out"],
    ),
    (GOOD + "outputs=b;\n", ["[OUTPUT_CONFIG] outputs, line 8", "a second time", "line 7", "keep one of the two"]),
    (GOOD + "[CONV_CONFIG]\ntensor_arrays=a;\ntensor_arrays=b;\n", ["a second time", "in one, with commas between"]),
    (GOOD.encode() + "# 均值".encode("gbk"), ["line 8", "not UTF-8", "save the file as UTF-8"]),
    (GOOD.encode("utf-16"), ["not UTF-8"]),
]


@pytest.mark.parametrize(("text", "parts"), BAD_FILES, ids=[str(i) for i in range(len(BAD_FILES))])
def test_bad_files_are_refused(tmp_path: Path, text: str | bytes, parts: list[str]) -> None:
    message = refusal(tmp_path, text)
    assert [part for part in parts if part not in message] == [], message


ONE_CAUSE = [  # files with one mistake, of which one problem comes
    GOOD.replace("inputs=", "imputs=", 1),
    GOOD.replace("inputs=data", "inputs=da，ta"),
    GOOD.replace("inputs=", "inputs＝", 1),
    GOOD.replace("[OUTPUT_CONFIG]", "[OUTPUT_CONFG]"),
    GOOD.replace("[INPUT_CONFIG]", "【INPUT_CONFIG】"),
    GOOD.replace("mean=", "means="),
    GOOD.replace("outputs=", "output="),
    "outputs=prob\n" + GOOD.replace("[OUTPUT_CONFIG]\noutputs=prob;\n", ""),
    GOOD.replace("prob;", "a,\n b，c;"),
]


@pytest.mark.parametrize("text", ONE_CAUSE, ids=[str(i) for i in range(len(ONE_CAUSE))])
def test_one_mistake_is_one_problem(tmp_path: Path, text: str) -> None:
    (problem,) = problems_of(tmp_path, text)
    assert problem.remedy and re.search(r"line \d", problem.node or "")


def test_problems_of_all_sections_come_together(tmp_path: Path) -> None:
    text = text_of(
        {"inputs": "a,b", "input_formats": "RGX,GRAY", "quantizations": "JA", "mean": "q", "std_value": "0"},
        {"outputs": "y,y", "dequantizations": "1"},
        {"input_format": "INT8", "tensor_arrays": "t,,u"},
    )
    problems = problems_of(tmp_path, text + "[CONV]\nx=1\n")
    places = [(problem.node or "").rpartition(", line ") for problem in problems]
    assert [int(line) for *_, line in places] == [3, 4, 5, 6, 8, 9, 11, 12, 13]
    assert places[-1][0] == "[CONV]"
    for problem in problems[:-1]:
        check_facts(problem, text)


def test_long_values_are_shortened_in_messages(tmp_path: Path) -> None:
    names = ",".join(f"tensor_{index}" for index in range(300))
    (problem,) = problems_of(tmp_path, text_of(PICTURE, {"outputs": names}, {}))
    assert f"takes {len(names)} characters, at most 2048 are allowed" in problem.reason
    assert "'tensor_0,tensor_1," in problem.reason and "…' takes" in problem.reason and len(problem.reason) < 140


def test_two_thousand_characters_of_names_are_read(tmp_path: Path) -> None:
    names = [f"tensor_{index:03}" for index in range(186)]
    assert len(",".join(names)) == 2045
    config = read(tmp_path, text_of(PICTURE, {"outputs": ",\n ".join(names)}, {}))
    assert [output.name for output in config.outputs] == names


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.ini", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            read_input_config(path)


def test_all_problems_are_reported_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = (
        "[INPUT_CONFIG]\ninputs=a\ninput_formats=RGB\nmean=1:2\nstd_value=0\nimputs=3\n[OUTPUT_CONFIG]\noutputs=b,b\n"
    )
    path = tmp_path / "x.ini"
    path.write_text(text)
    with pytest.raises(Problems) as caught:
        read_input_config(path)
    nodes = [problem.node or "" for problem in caught.value.problems]
    assert [re.sub(r".*, ", "", node) for node in nodes] == ["line 4", "line 5", "line 6", "line 8"]
    assert nodes[0] == "[INPUT_CONFIG] mean, line 4"


def test_a_value_at_fault_is_not_also_missing(tmp_path: Path) -> None:
    message = refusal(tmp_path, text_of({**PICTURE, "input_formats": "RGX", "mean": "x"}, OUTPUTS, {}))
    assert "missing" not in message
    assert message.count("  - ") == 2


def test_every_key_of_the_manual_is_known() -> None:
    assert {key for keys in KEYS.values() for key in keys} >= {
        *("inputs", "training_input_formats", "input_formats", "quantizations", "mean", "std_value"),
        *("input_width_alignment", "input_height_alignment", "input_layouts"),
        *("outputs", "dequantizations", "output_layouts", "output_formats", "input_format", "tensor_arrays"),
    }


# (value, items, comment)
VALUES: list[tuple[str, list[str], str]] = [
    (" a , b c ; # note", ["a", "bc"], "note"),
    ("'a b',\"c#;,d\"#x", ["a b", "c#;,d"], "x"),
    ("", [""], ""),
    ("it's", ["it's"], ""),
    ("1:2 : 3", ["1:2:3"], ""),
]


@pytest.mark.parametrize(("value", "items", "comment"), VALUES)
def test_values_are_split(value: str, items: list[str], comment: str) -> None:
    assert ini.split_value(value)[:2] == (items, comment)


# ---- against the toolchain and the model -----------------------------------------------------------------------------

Shapes = dict[str, tuple[int, ...]]
MISMATCHES: list[tuple[Keys, Keys, Shapes, Shapes, list[str]]] = [
    ({}, {}, {"data": (1, 5, 6, 3)}, {"prob": (1, 10)}, []),
    ({}, {}, {"data": (1, 5, 6, -1)}, {"prob": (1, 10)}, []),
    ({"input_layouts": "NCHW"}, {}, {"data": (1, 3, 5, 6)}, {"prob": (1, 10)}, []),
    ({}, {}, {"image": (1, 5, 6, 3)}, {"prob": (1, 10)}, ["2 problems", "'data' is not an input", "its inputs: image"]),
    ({}, {}, {"data": (1, 5, 6, 3), "b": (1,)}, {"prob": (1, 10)}, ["inputs that are not listed: b"]),
    ({}, {}, {"data": (1, 5, 6, 3)}, {"prob": (1,), "aux": (1,)}, ["outputs that are not listed: aux"]),
    ({}, {"outputs": "x"}, {"data": (1, 5, 6, 3)}, {"prob": (1,)}, ["'x' is not an output", "its outputs: prob"]),
    ({}, {}, {"data": (1, 5, 6, 4)}, {"prob": (1,)}, ["RGB needs 3 channels", "has 4 in [1,5,6,4] (NHWC)"]),
    ({"input_layouts": "NCHW"}, {}, {"data": (1, 5, 6, 3)}, {"prob": (1,)}, ["has 5 in [1,5,6,3] (NCHW)"]),
    ({"input_formats": "GRAY", "mean": "0"}, {}, {"data": (1, 5, 6, 3)}, {"prob": (1,)}, ["GRAY needs 1 channel,"]),
    ({}, {}, {"data": (1, 30)}, {"prob": (1,)}, ["picture needs rank 4", "[1,30]"]),
    ({}, {"output_layouts": "NCHW"}, {"data": (1, 5, 6, 3)}, {"prob": (1, 7)}, ["layout NCHW needs rank 4"]),
    (
        {"input_formats": "RAWDATA_F32_NHWC", "mean": None, "std_value": None, "input_layouts": "NCHW"},
        *({}, {"data": (1, 7)}, {"prob": (1,)}, ["layout NCHW needs rank 4", "write NHWC"]),
    ),
]


@pytest.mark.parametrize(
    ("inputs", "outputs", "model_inputs", "model_outputs", "parts"),
    MISMATCHES,
    ids=[str(i) for i in range(len(MISMATCHES))],
)
def test_check_against_names(
    tmp_path: Path, inputs: Keys, outputs: Keys, model_inputs: Shapes, model_outputs: Shapes, parts: list[str]
) -> None:
    config = read(tmp_path, text_of({**PICTURE, **inputs}, {**OUTPUTS, **outputs}, {}))
    if not parts:
        check_against_names(config, model_inputs, model_outputs)
        return
    with pytest.raises(UserError) as caught:
        check_against_names(config, model_inputs, model_outputs)
    assert [part for part in parts if part not in caught.value.render()] == [], caught.value.render()
