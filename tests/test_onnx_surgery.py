"""Parts of ONNX models, and free dimensions that get extents."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from onnx_compare import assert_same, save
from onnx_snippets import Net
from sgs.cli import convert_tool
from sgs.cli.options import endpoints, extent_of, layouts
from sgs.errors import UserError
from sgs.frontends.onnx_import import import_onnx
from sgs.frontends.onnx_model import normalised
from sgs.frontends.onnx_surgery import Endpoint, Surgery, operate
from sgs.sim import read_sim
from shipped import CHIP, SOURCE


def two_heads() -> ModelProto:
    """x → conv → relu → (sigmoid → p, tanh → q); y → q too."""
    net = Net()
    x, y = net.input("x", 1, 3, 6, 8), net.input("y", 1, 5, 6, 8)
    trunk = net("Relu", net.conv(x, 3, 5), result="trunk")
    p = net("Sigmoid", net.conv(trunk, 5, 7), result="p")
    return net.model(p, net("Add", net("Tanh", trunk, result="inner"), y, result="q"))


def free(symbols: tuple[int | str, ...] = ("n", 3, "h", "w")) -> ModelProto:
    net = Net()
    model = net.model(net.conv(net.input("x", *symbols), 3, 5))
    model.graph.input[0].type.tensor_type.shape.dim[2].denotation = "DATA_FEATURE"
    model.graph.input[0].type.tensor_type.shape.dim[1].denotation = "DATA_CHANNEL"
    return model


def cut(inputs: str = "", outputs: str = "", **dims: dict[str, int]) -> Surgery:
    return Surgery(endpoints(inputs) if inputs else (), endpoints(outputs) if outputs else (), **dims)


def names(values: Any) -> list[str]:
    return [value.name for value in values]


# -- extraction --------------------------------------------------------------------------------------------------------
def test_the_part_is_what_the_extractor_of_onnx_takes_out(tmp_path: Path) -> None:
    model = two_heads()
    ours = operate(normalised(two_heads(), Path("m.onnx")), cut("trunk,y", "p,q")).proto
    theirs = onnx.utils.Extractor(model).extract_model(["trunk", "y"], ["p", "q"])
    assert [n.name for n in ours.graph.node] == [n.name for n in theirs.graph.node]
    assert set(names(ours.graph.initializer)) == set(names(theirs.graph.initializer))
    assert names(ours.graph.input) == ["trunk", "y"] and names(ours.graph.output) == ["p", "q"]
    onnx.checker.check_model(ours)


def test_a_part_computes_what_it_did_in_the_whole(tmp_path: Path) -> None:
    path = save(two_heads(), tmp_path)
    surgery = cut("trunk,y", "q,p")
    graph = import_onnx(path, surgery=surgery)
    assert graph.inputs == ["trunk", "y"] and graph.outputs == ["q", "p"]
    assert_same(graph, operate(normalised(two_heads(), path), surgery).proto)


def test_outputs_alone_take_the_inputs_that_they_need(tmp_path: Path) -> None:
    graph = import_onnx(save(two_heads(), tmp_path), surgery=cut(outputs="inner"))
    assert (graph.inputs, graph.outputs) == (["x"], ["inner"])


def test_shapes_of_inputs_change_with_the_cut(tmp_path: Path) -> None:
    graph = import_onnx(save(two_heads(), tmp_path), surgery=cut("x[1,3,10,12]", "p[1,7,10,12]"))
    assert graph["x"].shape == (1, 10, 12, 3) and graph["p"].shape == (1, 10, 12, 7)


def test_the_model_itself_stays_as_it_is() -> None:
    source = normalised(two_heads(), Path("m.onnx"))
    before = source.proto.SerializeToString(deterministic=True)
    operate(source, cut("trunk", "p"))
    operate(normalised(free(), Path("f.onnx")), cut(free_dim_param={"n": 1}))
    assert source.proto.SerializeToString(deterministic=True) == before


def test_values_that_bodies_read_from_outside_are_kept() -> None:
    taken = helper.make_graph(
        [helper.make_node("Add", ["scale", "x"], ["t"])], "then", [], [helper.make_empty_tensor_value_info("t")]
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["e"])], "else", [], [helper.make_empty_tensor_value_info("e")]
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=taken, else_branch=other)
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])]
    constants = [onnx.numpy_helper.from_array(np.array(v), n) for n, v in (("c", True), ("scale", np.float32(2)))]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["y"], ["z"]), node][::-1],
        "g",
        ends,
        [helper.make_empty_tensor_value_info("z")],
        constants,
    )
    source = normalised(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), Path("m.onnx"))
    part = operate(source, cut(outputs="y")).proto.graph
    assert names(part.input) == ["x"] and set(names(part.initializer)) == {"c", "scale"}


def test_inner_tensors_of_unknown_type_are_floats_where_their_readers_say_so(tmp_path: Path) -> None:
    net = Net()
    x = net.input("x", 1, 4)
    strange = net("Strange", x, domain="x", result="strange")
    model = helper.make_model(
        helper.make_graph(
            [*net.nodes, helper.make_node("Sigmoid", [strange], ["y"]), helper.make_node("Neg", [strange], ["z"])],
            "g",
            net.inputs,
            [helper.make_empty_tensor_value_info(n) for n in "yz"],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("x", 1)],
    )
    path = save(model, tmp_path)
    assert import_onnx(path, surgery=cut("strange[1,4]", "y")).inputs == ["strange"]
    del model.graph.node[1]
    del model.graph.output[0]
    with pytest.raises(UserError, match="the element type of 'strange' is not known"):
        import_onnx(save(model, tmp_path), surgery=cut("strange[1,4]", "z"))


@pytest.mark.parametrize(
    ("surgery", "message"),
    [
        (cut("trnk", "p"), r"--inputs: the model has no tensor 'trnk' \(did you mean trunk\?"),
        (cut(outputs="qq,trunc"), r"2 problems\n.*no tensor 'qq'.*\n.*no tensor 'trunc' \(did you mean trunk"),
        (cut("c0", "p"), "'c0' is a constant"),
        (cut("trunk", "p,q"), "the outputs p, q also need the input y"),
        (cut("inner,x", "p"), "no output needs inner"),
        (cut(outputs="p[1,7,6,9]"), r"output 'p' has the shape \[1,7,6,8\], not \[1,7,6,9\]"),
        (cut("x[1,3,6]", "p"), "shape 1,3,6 does not fit input 'x'"),
    ],
)
def test_cuts_that_cannot_be(surgery: Surgery, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        import_onnx(save(two_heads(), tmp_path), surgery=surgery)


def test_two_shapes_for_one_input_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--input_shapes gives 'x' the shape 1,3,6,8, --inputs 1,3,4,8"):
        import_onnx(save(two_heads(), tmp_path), surgery=cut("x[1,3,4,8]", "p"), input_shapes=[[1, 3, 6, 8]])


# -- free dimensions ---------------------------------------------------------------------------------------------------
def test_free_dimensions_by_symbol_and_denotation(tmp_path: Path) -> None:
    surgery = cut(free_dim_param={"n": 1, "w": 8}, free_dim_denotation={"DATA_FEATURE": 6, "DATA_CHANNEL": 3})
    graph = import_onnx(save(free(), tmp_path), surgery=surgery)
    assert graph["x"].shape == (1, 6, 8, 3)


@pytest.mark.parametrize(
    ("surgery", "shapes", "message"),
    [
        (cut(free_dim_param={"N": 1}), None, r"no input has a dimension with the symbol 'N' \(there are: h, n, w\)"),
        (cut(free_dim_denotation={"X": 1}), None, r"denotation 'X' \(there are: DATA_CHANNEL, DATA_FEATURE\)"),
        (cut(free_dim_denotation={"DATA_CHANNEL": 4}), None, "but that dimension of input 'x' is 3"),
        (cut(free_dim_param={"h": 6}, free_dim_denotation={"DATA_FEATURE": 7}), None, "6 by its symbol, 7 by its"),
        (cut(free_dim_param={"n": 2}), [[1, 3, 6, 8]], "shape 1,3,6,8, but --free_dim_param gives 'n' 2"),
        (cut("x[1,3,6,8]", free_dim_param={"n": 2}), None, "shape 1,3,6,8, but --free_dim_param gives 'n' 2"),
        (cut(free_dim_param={"n": 1}), None, r"the shape of input 'x' \[1,3,h,w\] is not static"),
    ],
)
def test_dimensions_that_cannot_be(surgery: Surgery, shapes: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        import_onnx(save(free(), tmp_path), surgery=surgery, input_shapes=shapes)


def test_one_symbol_with_two_extents_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        import_onnx(save(free(("n", 3, "s", "s")), tmp_path), input_shapes=[[1, 3, 6, 8]])
    assert "dimension 's' is 6 in input 'x', 8 in input 'x'" in caplog.text


# -- words of the command line -----------------------------------------------------------------------------------------
def test_endpoints_as_words() -> None:
    assert endpoints("a[1,3,416,416], b:0[1,2],c[],d") == (
        Endpoint("a", (1, 3, 416, 416)),
        Endpoint("b:0", (1, 2)),
        Endpoint("c", ()),
        Endpoint("d"),
    )
    assert endpoints("x[i]") == (Endpoint("x[i]"),)


def test_other_words() -> None:
    assert extent_of("a:b:3") == ("a:b", 3)
    assert layouts("a:nhwc,b:0:NCHW") == {"a": "NHWC", "b:0": "NCHW"}


@pytest.mark.parametrize(
    ("read", "text"),
    [(endpoints, "a,,b"), (endpoints, "a[0]"), (endpoints, "a,a"), (extent_of, "a"), (extent_of, "a:0")]
    + [(extent_of, ":3"), (layouts, "a"), (layouts, "a:CHW")],
)
def test_words_that_are_none(read: Any, text: str) -> None:
    with pytest.raises(Exception, match="'"):
        read(text)


# -- through the program -----------------------------------------------------------------------------------------------
def test_the_program_cuts_checks_and_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--inputs", "images[1,3,96,96]", "--outputs", "logits[1,10]", "--source_layouts", "images:NCHW"]
    code = convert_tool.main(["onnx", *SOURCE, "--output_file", str(tmp_path), *options, "--checker", "-v"])
    told = capsys.readouterr()
    assert code == 0, told.err
    assert "info: Transposes: 0 in the model, " in told.err
    assert read_sim(tmp_path / "Converted_Net_float.sim").graph["images"].shape == (1, 96, 96, 3)


def test_what_has_no_integer_form_still_becomes_a_float_sim(tmp_path: Path) -> None:
    net = Net()
    x = net.input("x", 1, 3, 6, 8)
    grid = net("Tanh", net("Transpose", net.conv(x, 3, 2), perm=[0, 2, 3, 1]))
    model = net.model(net("GridSample", x, grid, result="y"))
    ini = tmp_path / "x.ini"
    ini.write_text(
        "[INPUT_CONFIG]\ninputs=x\ninput_formats=RAWDATA_F32_NHWC\ntraining_input_formats=RAWDATA_F32_NHWC\n"
        "[OUTPUT_CONFIG]\noutputs=y\n"
    )
    command = ["onnx", "--model_file", str(save(model, tmp_path)), "--input_config", str(ini)]
    assert convert_tool.main([*command, "--output_file", str(tmp_path / "x.sim"), "--soc_version", CHIP]) == 0
    assert_same(read_sim(tmp_path / "x.sim").graph, model)
