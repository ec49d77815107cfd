"""The programs that look inside .sim and .img files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_snippets import Net, conv_chain
from sgs.cli import show_img_info, show_model_info, show_tensor_info
from sgs.compile import compile_graph
from sgs.config.chips import load_chip
from sgs.img import Compute, Dma, Space, image_bytes, read_image, write_image
from sgs.ir import Graph
from sgs.numeric.quantise import QuantParams
from sgs.numeric.types import DType
from sgs.report.columns import aligned
from sgs.report.disassembly import disassembly, short_type
from sgs.report.image_info import image_facts, quant_facts, quant_text
from sgs.report.tensor_info import graph_tensors, image_tensors, statistics
from sgs.sim import read_sim, write_sim
from shipped import CHIP, converted, launch
from test_cascade import pyramid
from test_compile import Fixed, chain, concat, packed_weights


def told(main: Any, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a program prints; it must end well."""
    capsys.readouterr()  # what making its file printed
    assert main([str(argument) for argument in arguments]) == 0, capsys.readouterr().err
    out, err = capsys.readouterr()
    assert not err
    return str(out)


def refused(main: Any, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The error of a program that must refuse: one message, and nothing else."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("error: ")
    return str(err)


def one_conv() -> Graph:
    f = Fixed()
    return f.done(f.conv(f.input("x", (1, 1, 1, 64), DType.UINT8), 4, 1, DType.UINT8))


def image_file(tmp_path: Path, graph: Graph, **options: Any) -> Path:
    write_image(compile_graph(graph, load_chip("ibopper"), **options), tmp_path / "x.img")
    return tmp_path / "x.img"


# -- show_img_info -----------------------------------------------------------------------------------------------------
def test_facts_of_a_shipped_image(capsys: pytest.CaptureFixture[str]) -> None:
    path = converted() / "digits.img"
    image, chip = read_image(path), load_chip(CHIP)
    facts = json.loads(told(show_img_info.main, capsys, "-m", path, "--json"))
    assert facts == json.loads(json.dumps(image_facts(image, chip, path.stat().st_size)))
    program = image.programs[0]
    assert (facts["format_version"], facts["chip"], facts["category"]) == (3, CHIP, "Unknown")
    assert facts["file_bytes"] == len(image_bytes(image))
    assert facts["variable_buffer_bytes"] == program.arena_size and facts["sram_bytes"] == program.sram_size
    assert 0 < facts["coded_weights_bytes"] < facts["weights_bytes"] == image.weights.size
    assert (facts["batch_mode"], facts["max_batch"], facts["supported_batches"]) == ("n_buf", 1, None)
    assert facts["cost"]["latency_seconds"] == pytest.approx(program.cycles / chip.clock_hz)
    (entry,) = facts["inputs"]
    assert (entry["name"], entry["shape"], entry["dtype"]) == ("images", list(image.inputs[0].shape), "UINT8")
    assert entry["bytes"] == np.prod(entry["shape"]) and entry["layout"] == "NHWC" and entry["mean"]
    text = told(show_img_info.main, capsys, "-m", path)
    for word in (
        "format version",
        f"{facts['file_bytes']:,} bytes",
        "largest batch",
        "arena (variable buffer)",
        "input images",
    ):
        assert word in text
    assert f"{program.cycles:,} cycles, modelled" in text


def test_batches_of_one_buffer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = image_file(tmp_path, chain(), batch_mode="one_buf", batches=[1, 2, 5])
    facts = json.loads(told(show_img_info.main, capsys, "-m", path, "--json"))
    assert (facts["batch_mode"], facts["max_batch"], facts["supported_batches"]) == ("one_buf", 5, [1, 2, 5])
    assert re.search(r"^batches +1, 2, 5$", told(show_img_info.main, capsys, "-m", path), re.MULTILINE)


def test_inputs_that_a_run_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = compile_graph(chain(), load_chip("ibopper"))
    for inplace, words in ((False, "no"), (True, "yes, a run overwrites its inputs")):
        write_image(replace(image, inplace_inputs=inplace), tmp_path / "x.img")
        facts = json.loads(told(show_img_info.main, capsys, "-m", tmp_path / "x.img", "--json"))
        assert facts["inplace_inputs"] is inplace
        text = told(show_img_info.main, capsys, "-m", tmp_path / "x.img")
        assert re.search(rf"^in-place inputs +{words}$", text, re.MULTILINE)


def test_a_chip_that_is_not_known_any_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = replace(compile_graph(chain(), load_chip("ibopper")), chip="pudding9000")
    write_image(image, tmp_path / "x.img")
    text = told(show_img_info.main, capsys, "-m", tmp_path / "x.img")
    assert "pudding9000" in text and re.search(r"^latency of a frame +[\d,]+ cycles$", text, re.MULTILINE)


def test_commands_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = image_file(tmp_path, one_conv())
    text = told(show_img_info.main, capsys, "-m", path, "--commands")
    heading, *lines = text.splitlines()
    assert heading.split() == ["command", "cycle", "takes", "engine", "layer", "operation"]
    program = read_image(path).programs[0]
    assert len(lines) == len(program.commands)
    for index, (line, command) in enumerate(zip(lines, program.commands, strict=True)):
        assert line.split()[:3] == [str(index), str(command.start), str(command.cycles)]
        assert line.split()[3:5] == ["mac" if isinstance(command, Compute) else "dma", "conv_2d"]
    places = {c.source.space: c.target.offset for c in program.commands if isinstance(c, Dma)}
    assert f"load  x input[x]+0x0 [1,1,1,64] u8 → sram+{places[Space.INPUT]:#x}" in text
    assert re.search(r"load  w weights\+0x0 \[\d,1,1,64\] s8 → sram", text)
    assert re.search(r"load  b weights\+0x100 \[\d\] s32 → sram", text)
    assert re.search(rf"run   CONV_2D x@{places[Space.INPUT]:#x} w@0x\w+ b@0x\w+ → conv_2d@0x\w+$", text, re.MULTILINE)
    assert re.search(r"store conv_2d sram\+0x\w+ \[1,1,1,\d\] u8 → output\[conv_2d\]\+0x0$", text, re.MULTILINE)


def test_commands_of_a_layer_and_some_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = image_file(tmp_path, pyramid())
    image = read_image(path)
    name = image.layers[1].name
    expected = [line for line in disassembly(image, image.programs[0]) if line.layer == name]
    chosen = ["-m", path, "--commands", "--layer", name]
    listed = json.loads(told(show_img_info.main, capsys, *chosen, "--json"))
    assert [one["index"] for one in listed] == [line.index for line in expected]
    assert [one["operation"] for one in listed] == [line.operation for line in expected]
    text = told(show_img_info.main, capsys, *chosen, "--limit", "2").splitlines()
    assert len(text) == 4 and text[-1] == f"and {len(expected) - 2:,} more commands"


def test_transfers_that_skip_bytes_say_how(tmp_path: Path) -> None:
    image = compile_graph(pyramid(), replace(load_chip("ibopper"), sram_bytes=9000))
    program = image.programs[0]
    found = {"store": 0, "load": 0, "copy": 0, "run": 0, "move": 0}
    for line, command in zip(disassembly(image, program), program.commands, strict=True):
        found[line.operation.split()[0]] += 1
        if isinstance(command, Dma):
            assert "?" not in line.operation
            gap = any(
                extent > 1 and side.strides[axis] != np.prod(command.extents[axis + 1 :]) * command.itemsize
                for side in (command.source, command.target)
                for axis, extent in enumerate(command.extents)
            )
            assert (" by [" in line.operation) == gap, line
    assert all(found[verb] for verb in ("store", "load", "copy", "run"))


def test_what_show_img_info_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = image_file(tmp_path, chain())
    assert "did you mean conv_2d?" in refused(show_img_info.main, capsys, "-m", path, "--commands", "--layer", "conv_2")
    assert "go with --commands" in refused(show_img_info.main, capsys, "-m", path, "--limit", "2")
    fixed = converted() / "digits_fixed.sim"
    for wrong, part in ((fixed, "this is a .sim file"), (tmp_path / "none.img", "cannot read"), (tmp_path, "read")):
        assert part in (error := refused(show_img_info.main, capsys, "-m", wrong)) and error.count("\n") == 1
    path.write_bytes(path.read_bytes()[:-7])
    assert refused(show_img_info.main, capsys, "-m", path).count("\n") == 1


# -- show_tensor_info --------------------------------------------------------------------------------------------------
def test_tensors_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = one_conv()
    graph["w"].data = np.arange(-128, 128, dtype=np.int8).reshape(4, 1, 1, 64).clip(-127)
    write_sim(graph, tmp_path / "x.sim", stage="fixed")
    options = ["-m", tmp_path / "x.sim", "--json", "--tensor"]
    x, w, y = json.loads(told(show_tensor_info.main, capsys, *options, "x", "w", "conv_2d"))
    node = {"name": "conv_2d", "operator": "CONV_2D"}
    assert (x["kind"], x["shape"], x["bytes"], x["producer"], x["readers"]) == (
        "input",
        [1, 1, 1, 64],
        64,
        None,
        [node],
    )
    assert (y["kind"], y["producer"], y["readers"]) == ("output", node, [])
    assert w["kind"] == "constant" and "values" not in x
    assert w["values"] == {"min": -127, "max": 127, "mean": pytest.approx(-127 / 256), "zero_share": 1 / 256}
    quant = graph["w"].quant
    assert quant is not None
    assert w["scale"] == {"axis": 0, "count": 4, "min": quant.scale.min(), "max": quant.scale.max()}
    assert w["zero_point"] == {"min": 0, "max": 0}
    text = told(show_tensor_info.main, capsys, "-m", tmp_path / "x.sim", "--tensor", "w")
    assert "-127 to 127, mean -0.496094, 0.39% zero" in text and "4 scales" in text and "CONV_2D conv_2d" in text


@pytest.mark.parametrize("stage", ["float", "fixed"])
def test_every_tensor_of_a_shipped_sim(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = converted() / f"digits_{stage}.sim"
    graph = read_sim(path).graph
    listed = json.loads(told(show_tensor_info.main, capsys, "-m", path, "--json"))
    assert listed == json.loads(json.dumps(graph_tensors(graph)))
    assert {one["name"] for one in listed} == set(graph.tensors) and len(listed) == len(graph.tensors)
    lines = told(show_tensor_info.main, capsys, "-m", path).splitlines()
    assert len(lines) == 1 + len(listed)
    for line, one in zip(lines[1:], listed, strict=True):
        assert line.startswith(one["name"])


def test_every_tensor_of_a_shipped_image(capsys: pytest.CaptureFixture[str]) -> None:
    """Names, values of constants and readers are those of the fixed .sim that it was compiled from."""
    path = converted() / "digits.img"
    image = read_image(path)
    listed = json.loads(told(show_tensor_info.main, capsys, "-m", path, "--json"))
    assert {one["name"] for one in listed} == {tensor.name for tensor in image.tensors}
    fixed = {one["name"]: one for one in graph_tensors(read_sim(converted() / "digits_fixed.sim").graph)}
    for one in listed:
        twin = fixed[one["name"]]
        assert (one["kind"], one["dtype"]) == (twin["kind"], twin["dtype"])
        assert one["places"], one["name"]
        assert bool(one["producers"]) == (twin["producer"] is not None), one["name"]
        if one["kind"] == "constant":
            assert one["values"] == pytest.approx(twin["values"]), one["name"]
            assert one["readers"] == twin["readers"] and not one["producers"]
    assert len(told(show_tensor_info.main, capsys, "-m", path).splitlines()) == 1 + len(listed)


def test_where_a_tensor_lies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = image_file(tmp_path, one_conv())
    text = told(show_tensor_info.main, capsys, "-m", path, "--tensor", "conv_2d", "x")
    assert re.search(r"lies in +output\[conv_2d\] 0x0..0x4 \(4 bytes\)\n +sram 0x\w+..0x\w+ \(\d bytes, cycles", text)
    assert re.search(r"^x\n  kind +input\n", text, re.MULTILINE)


def test_pieces_and_moves_in_an_image() -> None:
    image = compile_graph(pyramid(), replace(load_chip("ibopper"), sram_bytes=9000))
    listed = {one["name"]: one for one in image_tensors(image)}
    joined = listed["concatenation"]
    assert [one["operator"] for one in joined["producers"]] == ["CONCATENATION"]
    assert {one["operator"] for one in joined["readers"]} == {"CONV_2D"}
    assert any(len(one["pieces"]) > 1 for one in listed.values())
    resized = listed["resize_nearest_neighbor"]
    assert "CONCATENATION" in {one["operator"] for one in resized["readers"]}


def test_tensors_that_share_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The two sums are only read as parts of what joins them along rows."""
    f = Fixed()
    x = f.input("x", (1, 4, 4, 8))
    parts = [f("ADD", x, x, activation=activation) for activation in ("NONE", "RELU")]
    y = f.typed_as(f.build("CONCATENATION", *parts, axis=1), parts[0])
    parts[1].quant = parts[0].quant
    path = image_file(tmp_path, f.done(f.table(y)))
    by_name = {one["name"]: one for one in image_tensors(read_image(path))}
    first, second = (by_name[part.name] for part in parts)
    assert first["readers"] == second["readers"] == []
    assert first["shares_bytes_with"] == second["shares_bytes_with"] == [y.name]
    assert by_name[y.name]["shares_bytes_with"] == [part.name for part in parts]
    assert by_name[y.name]["producers"] == first["producers"] + second["producers"]
    assert by_name["x"]["shares_bytes_with"] == []
    lines = told(show_tensor_info.main, capsys, "-m", path).splitlines()
    assert sum(line.endswith(f"  shares bytes with {y.name}") for line in lines) == 2
    text = told(show_tensor_info.main, capsys, "-m", path, "--tensor", y.name)
    assert re.search(rf"^  shares bytes +with {parts[0].name}, {parts[1].name}$", text, re.MULTILINE)


@pytest.mark.parametrize("make", [packed_weights, concat])
def test_constants_of_an_image_are_those_of_the_graph(make: Any) -> None:
    graph = make()
    expected = {one["name"]: one for one in graph_tensors(graph)}
    constants = [one for one in image_tensors(compile_graph(graph, load_chip("ibopper"))) if one["kind"] == "constant"]
    assert constants
    for one in constants:
        assert one["values"] == pytest.approx(expected[one["name"]]["values"]), one["name"]


def test_names_that_there_are_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = image_file(tmp_path, chain())
    error = refused(show_tensor_info.main, capsys, "-m", path, "--tensor", "conv_2", "x")
    assert "there is no tensor 'conv_2' (did you mean conv_2d?)" in error and error.count("\n") == 1
    error = refused(show_tensor_info.main, capsys, "-m", path, "--tensor", "conv_2", "qqq")
    assert "2 problems" in error and "'qqq' (known: " in error


def test_files_that_are_neither(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.sim").write_text("hello, world")
    (tmp_path / "y.img").write_text("hello, world")
    for name, part in (
        ("x.sim", "this is not a .sim file"),
        ("y.img", "not an offline image"),
        ("z.sim", "No such file"),
    ):
        error = refused(show_tensor_info.main, capsys, "-m", tmp_path / name)
        assert part in error and error.count("\n") == 1


def test_values_that_are_no_numbers() -> None:
    empty = {"min": None, "max": None, "mean": None, "zero_share": None}
    assert statistics(np.zeros((0, 3), np.float32), None) == empty
    found = statistics(np.array([0, np.inf], np.float32), None)
    assert found == {"min": 0, "max": None, "mean": None, "zero_share": 0.5}
    shifted = QuantParams(np.ones(2, np.float32), np.array([3, 4]), 1)
    assert statistics(np.array([[3, 3], [4, 4]], np.uint8), shifted)["zero_share"] == 0.5
    assert quant_text(quant_facts(shifted)) == "2 scales 1..1 on axis 1, zero 3..4"
    assert quant_text(quant_facts(None)) == "-"


def test_columns_and_types() -> None:
    assert aligned([["a", "bcd"], ["efg", ""]]) == ["a    bcd", "efg"]
    shown: Sequence[str] = [short_type(dtype) for dtype in (DType.UINT8, DType.INT16, DType.INT4, DType.FLOAT32)]
    assert shown == ["u8", "s16", "s4", "f32"]


@pytest.mark.parametrize("program", ["show_img_info", "show_tensor_info"])
def test_as_programs(program: str, tmp_path: Path) -> None:
    done = launch(f"DumpDebug/{program}.py", "-m", converted() / "digits.img", cwd=tmp_path)
    assert done.returncode == 0 and "images" in done.stdout and not done.stderr


# -- show_model_info ---------------------------------------------------------------------------------------------------
def refused_model() -> onnx.ModelProto:
    """Free dimensions, a body, an operator that nobody knows, and one behind it."""
    net = Net()
    x = net.input("x", "batch", 3, "h", "w")
    y = net("Strange", net.conv(x, 3, 5), domain="strange", result="odd")
    z = net("Relu", net("Det", y))
    graph = onnx.helper.make_graph(
        net.nodes, "g", net.inputs, [onnx.helper.make_empty_tensor_value_info(z)], net.initializers
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("strange", 3)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, producer_name="tester")
    model.graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    return model


def test_a_model_and_all_that_is_refused_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save_model(refused_model(), tmp_path / "m.onnx")
    text = told(show_model_info.main, capsys, tmp_path / "m.onnx", "--skip_simplify", "-f", "h:32")
    for words in (
        "producer        tester",
        "operator sets   ai.onnx 17, strange 3",
        "parameters      140 in 2 tensors, 560 bytes",
        "assumed shapes  x[1,3,32,224] (say others",
        "x  float32  [batch,3,h,w]  axis 0: DATA_BATCH",
        "1  strange.Strange",
        "ConvertTool would refuse it: 2 problems",
        "- Strange 'node_odd': operator strange.Strange is not",
        "- Det 'node_det",
    ):
        assert words in text, text
    facts = json.loads(told(show_model_info.main, capsys, tmp_path / "m.onnx", "--skip_simplify", "--json"))
    assert facts["operators"] == {"Conv": 1, "strange.Strange": 1, "Det": 1, "Relu": 1}
    assert facts["assumed_shapes"] == {"x": [1, 3, 224, 224]}
    assert [problem["node"] for problem in facts["problems"]][0] == "Strange 'node_odd'"


def test_a_model_whose_data_are_missing_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.onnx"
    onnx.save_model(conv_chain(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    text = told(show_model_info.main, capsys, path)
    assert "external data   w.bin, " in text and "ConvertTool: no problem found" in text
    (tmp_path / "w.bin").unlink()
    text = told(show_model_info.main, capsys, path)
    assert "external data   w.bin, missing, " in text and "cannot be read" in text


@pytest.mark.parametrize(
    ("name", "kind"),
    [("Debug_digits_float.sim", "untouched import .sim"), ("digits_float.sim", "float .sim")]
    + [("digits_fixed.sim", "fixed .sim"), ("digits.img", "offline .img")],
)
def test_our_own_files_are_told_apart(name: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(show_model_info.main, capsys, converted() / name)
    assert f"kind            {kind}" in text and "images" in text and "logits" in text


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("m.txt", b"x", "'.txt'"), ("m.onnx", b"garbage " * 9, "not an ONNX model"), ("m.sim", b"x" * 99, "not a .sim")],
)
def test_what_is_no_model(
    name: str, content: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert words in refused(show_model_info.main, capsys, tmp_path / name)
    assert "No such file" in refused(show_model_info.main, capsys, tmp_path / "none.sim")
