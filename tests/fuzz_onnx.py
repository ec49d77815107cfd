"""Damaged ONNX files by the thousand: ConvertTool converts each or refuses it (exit code 0 or 2), and so does
show_model_info; nothing crashes, hangs, or takes much memory.

usage: python tests/fuzz_onnx.py [--files 2000] [--seed 0] [--jobs 2]

A file is made from a small model, by its number and the seed alone, in one of three ways:

    flip     bits, bytes or blocks of the file changed
    cut      shortened, or lengthened
    fields   what the message holds changed: names, operators, attributes, shapes, types, values, the order of nodes

What is found is printed with the number of the file; `--only NUMBER` tries that one here. The exit code is 1 when there
was anything.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "Scripts"), str(ROOT / "tests")]

from onnx import AttributeProto, ModelProto, NodeProto, TensorProto  # noqa: E402

from fuzzing import Fuzz, cut, exit_code, flip  # noqa: E402
from onnx_snippets import SNIPPETS  # noqa: E402
from sgs.cli import convert_tool, show_model_info  # noqa: E402
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES  # noqa: E402
from test_onnx_import import CASES, one_node_model  # noqa: E402

KINDS = ("flip", "flip", "fields", "flip", "fields", "cut", "flip", "fields")
ONNXSIM_EVERY = 100  # files; it takes seconds, in a process of its own
NUMBERS = (0, 1, -1, 2, 3, 7, 64, 255, 65536, 10**6, 2**31 - 1, 2**31, -(2**31), 2**40, 2**63 - 1, -(2**63))
OPERATORS = (*IMPORT_ONNX, "If", "Loop", "Scan", "Shape", "ConstantOfShape", "Constant", "EyeLike", "Unknown", "")


# -- originals ---------------------------------------------------------------------------------------------------------
@cache
def original(name: str, index: int = 0) -> ModelProto:
    """A snippet by its name, or an example of an operator."""
    return SNIPPETS[name]() if name in SNIPPETS else one_node_model(ONNX_EXAMPLES[name][index])


def drawn(rng: random.Random) -> ModelProto:
    found = ModelProto()
    found.CopyFrom(original(rng.choice(list(SNIPPETS))) if rng.random() < 0.5 else original(*rng.choice(CASES)))
    return found


# -- damage to what the message holds ----------------------------------------------------------------------------------
def a_name(model: ModelProto, rng: random.Random) -> str:
    """A name that the model has, or none, or another one."""
    names = [name for node in model.graph.node for name in (*node.input, *node.output)]
    return rng.choice([*names, *names, "", "nowhere", "n" * 3000, "a\0b"])


def a_node(model: ModelProto, rng: random.Random) -> NodeProto:
    return rng.choice(model.graph.node)


def other_operand(model: ModelProto, rng: random.Random) -> None:
    node = a_node(model, rng)
    names = rng.choice([node.input, node.input, node.output])
    if names and rng.random() < 0.7:
        names[rng.randrange(len(names))] = a_name(model, rng)
    elif names and rng.random() < 0.5:
        del names[rng.randrange(len(names))]
    else:
        names.append(a_name(model, rng))


def other_operator(model: ModelProto, rng: random.Random) -> None:
    node = a_node(model, rng)
    node.op_type = rng.choice(OPERATORS)
    if rng.random() < 0.1:
        node.domain = rng.choice(["com.microsoft", "ai.onnx", "x"])


def other_attribute(model: ModelProto, rng: random.Random) -> None:
    """An attribute with another number or type, gone, or doubled."""
    node = a_node(model, rng)
    if not node.attribute:
        node.attribute.add(name=rng.choice(["axis", "perm", "then_branch"]), i=rng.choice(NUMBERS), type=2)
        return
    index = rng.randrange(len(node.attribute))
    attribute = node.attribute[index]
    how = rng.randrange(5)
    if how == 0:
        del node.attribute[index]
    elif how == 1:
        attribute.type = rng.choice(list(AttributeProto.AttributeType.values()))
    elif how == 2 or not attribute.ints:
        attribute.i, attribute.f = rng.choice(NUMBERS), rng.choice([0.0, -1.0, 1e30, float("nan"), float("inf")])
    elif how == 3:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(NUMBERS)
    else:
        attribute.ints.extend([rng.choice(NUMBERS)] * rng.choice([1, 2, 1000]))


def other_initializer(model: ModelProto, rng: random.Random) -> None:
    """A constant with another shape, type, value, or place."""
    if not model.graph.initializer:
        return other_operator(model, rng)
    tensor = rng.choice(model.graph.initializer)
    how = rng.randrange(6)
    if how == 0 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS)
    elif how == 1:
        tensor.data_type = rng.choice([*TensorProto.DataType.values(), 99])
    elif how == 2:
        tensor.raw_data = flip(tensor.raw_data, rng) if tensor.raw_data else b"\0"
    elif how == 3:
        tensor.raw_data = tensor.raw_data[: len(tensor.raw_data) // 2]
    elif how == 4:
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", rng.choice(["w.bin", "../w", "/dev/zero", "", "."])), ("offset", "9")):
            tensor.external_data.add(key=key, value=value)
    else:
        tensor.name = a_name(model, rng)
    return None


def other_input(model: ModelProto, rng: random.Random) -> None:
    values = rng.choice([model.graph.input, model.graph.input, model.graph.output, model.graph.value_info])
    if not values:
        return
    kind = rng.choice(values).type.tensor_type
    if rng.random() < 0.3:
        kind.elem_type = rng.choice([*TensorProto.DataType.values(), 99])
    elif kind.shape.dim and rng.random() < 0.8:
        kind.shape.dim[rng.randrange(len(kind.shape.dim))].dim_value = rng.choice(NUMBERS)
    else:
        kind.shape.dim.add(dim_value=rng.choice(NUMBERS))


def other_order(model: ModelProto, rng: random.Random) -> None:
    """Nodes elsewhere, gone or doubled; another operator set."""
    nodes = list(model.graph.node)
    how = rng.randrange(4)
    if how == 0:
        rng.shuffle(nodes)
    elif how == 1:
        nodes.pop(rng.randrange(len(nodes)))
    elif how == 2:
        nodes.append(rng.choice(nodes))
    else:
        model.opset_import[0].version = rng.choice([1, 5, 7, 9, 10, 12, 18, 22, *NUMBERS[:10]])
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


FIELDS: tuple[Callable[[ModelProto, random.Random], None], ...] = (
    *(other_operand, other_operator, other_attribute, other_attribute, other_initializer, other_initializer),
    *(other_input, other_order),
)


def fields(data: bytes, rng: random.Random) -> bytes:
    model = ModelProto.FromString(data)
    for _ in range(rng.choice([1, 1, 2, 3])):
        if model.graph.node:
            rng.choice(FIELDS)(model, rng)
    return model.SerializeToString()


DAMAGE: dict[str, Callable[[bytes, random.Random], bytes]] = {"flip": flip, "cut": cut, "fields": fields}


# -- one file ----------------------------------------------------------------------------------------------------------
def make_case(seed: int, index: int) -> tuple[ModelProto, bytes]:
    """(original, damaged file) number `index` of a campaign."""
    rng = random.Random(f"{seed} {index}")
    model = drawn(rng)
    return model, DAMAGE[KINDS[index % len(KINDS)]](model.SerializeToString(), rng)


def settings(model: ModelProto) -> str:
    """An ini that takes whatever the original's inputs and outputs are."""
    inputs, outputs = ([value.name for value in side] for side in (model.graph.input, model.graph.output))
    formats = ",".join(["RAWDATA_F32_NHWC"] * len(inputs))
    return (
        f"[INPUT_CONFIG]\ninputs={','.join(inputs)};\ntraining_input_formats={formats};\ninput_formats={formats};\n"
        f"quantizations={','.join(['TRUE'] * len(inputs))};\n"
        f"[OUTPUT_CONFIG]\noutputs={','.join(outputs)};\ndequantizations={','.join(['TRUE'] * len(outputs))};\n"
    )


def try_one(seed: int, index: int) -> str:
    """What ConvertTool makes of file number `index`: converted or refused. Raises Finding where it, or show_model_info,
    does anything else."""
    model, data = make_case(seed, index)
    with tempfile.TemporaryDirectory(prefix="sgs_fuzz_") as folder:
        file, ini = Path(folder, "damaged.onnx"), Path(folder, "damaged.ini")
        file.write_bytes(data)
        ini.write_text(settings(model), encoding="utf-8")
        options = [f"--model_file={file}", f"--input_config={ini}", f"--output_file={folder}", "--soc_version=pcupid"]
        skip = [] if index % ONNXSIM_EVERY == 0 else ["--skip_simplify"]
        code = exit_code(convert_tool.main, ["onnx", *options, *skip])
        exit_code(show_model_info.main, [str(file), "--skip_simplify"])
    return "refused" if code else "converted"


FUZZ = Fuzz(
    script=__file__,
    kinds=KINDS,
    outcomes=("refused", "converted"),
    prepare=lambda: try_one(0, 1),
    try_one=try_one,
    memory=2 << 30,
    growth=512 << 20,
)

if __name__ == "__main__":
    sys.exit(FUZZ.main("Damaged ONNX files against ConvertTool and show_model_info.", files=2000))
