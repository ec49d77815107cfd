"""Damaged TFLite files by the thousand: ConvertTool converts each or refuses it (exit code 0 or 2), and so does
show_model_info; nothing crashes, hangs, or takes much memory.

usage: python tests/fuzz_tflite.py [--files 1000] [--seed 0] [--jobs 2]

A file is made from a small one, by its number and the seed alone, in one of three ways:

    flip     bits, bytes or blocks of the file changed
    cut      shortened, or lengthened
    fields   what the file holds changed: operators, their options and operands, shapes, types, values, scales

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
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "Scripts"), str(ROOT / "tests")]

import numpy as np  # noqa: E402

import sgs.ops  # noqa: E402, F401 - fills the tables
from fuzzing import Fuzz, cut, exit_code, flip  # noqa: E402
from raw_chain import ini  # noqa: E402
from sgs.cli import convert_tool, show_model_info  # noqa: E402
from sgs.frontends.tflite.rows import is_spelled  # noqa: E402
from sgs.registry import EXAMPLES, IMPORT_TFLITE, TFLITE_EXAMPLES  # noqa: E402
from sgs.sim import generated as schema  # noqa: E402
from sgs.sim import sim_bytes  # noqa: E402
from sgs.sim.fields import enum_names  # noqa: E402
from test_tflite_codes import dynamic_range, embedding, quantised, sparse  # noqa: E402
from test_tflite_import import channels_first, dilated, reshaping  # noqa: E402
from tflite_files import case_file, pack, unpacked  # noqa: E402

KINDS = ("flip", "fields", "flip", "fields", "flip", "cut")
NUMBERS = (0, 1, -1, 2, 3, 7, 64, 255, 65536, 10**6, 2**31 - 1, -(2**31))
OPERATORS = tuple(enum_names(schema.BuiltinOperator))
NETWORKS: tuple[Callable[[], bytes], ...] = (
    dynamic_range,
    lambda: embedding("GATHER"),
    lambda: quantised("int8"),
    lambda: quantised("uint8", ends=False),
    lambda: sparse(blocks=False)[0],
    lambda: sparse(blocks=True)[0],
    channels_first,
    lambda: dilated((0, 1, 1, 0)),
    lambda: reshaping((2, 3, 5, 4), (-1, 3, 5, 4)),
)
ROWS = tuple((op, index) for op in TFLITE_EXAMPLES for index, case in enumerate(TFLITE_EXAMPLES[op]) if case.inputs)
SPELLED = tuple(op for op in EXAMPLES if is_spelled(op) and op not in IMPORT_TFLITE)


# -- originals ---------------------------------------------------------------------------------------------------------
@cache
def of_row(op: str, index: int) -> bytes:
    return case_file(TFLITE_EXAMPLES[op][index])


@cache
def of_spelled(op: str) -> bytes:
    """An example of an operator of ours, as a file of somebody else."""
    model = unpacked(sim_bytes(EXAMPLES[op]()[0], "float"))
    model.metadata = None
    return pack(model)


@cache
def network(number: int) -> bytes:
    return NETWORKS[number]()


def drawn(rng: random.Random) -> bytes:
    how = rng.random()
    if how < 0.4:
        return of_row(*rng.choice(ROWS))
    return of_spelled(rng.choice(SPELLED)) if how < 0.6 else network(rng.randrange(len(NETWORKS)))


# -- damage to what the file holds -------------------------------------------------------------------------------------
def other_operand(model: Any, rng: random.Random) -> None:
    graph = model.subgraphs[0]
    if not graph.operators:
        return
    operator = rng.choice(graph.operators)
    side = rng.choice(["inputs", "inputs", "outputs"])
    numbers = list(getattr(operator, side))
    if numbers and rng.random() < 0.7:
        numbers[rng.randrange(len(numbers))] = rng.choice([-1, rng.randrange(len(graph.tensors)), 99])
    elif numbers and rng.random() < 0.5:
        numbers.pop()
    else:
        numbers.append(rng.randrange(len(graph.tensors)))
    setattr(operator, side, np.array(numbers, np.int32))


def other_operator(model: Any, rng: random.Random) -> None:
    code = rng.choice(model.operatorCodes)
    code.builtinCode = rng.choice([*OPERATORS, 250])
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)


def other_option(model: Any, rng: random.Random) -> None:
    found = [operator for operator in model.subgraphs[0].operators if operator.builtinOptions is not None]
    fields = [(operator.builtinOptions, name) for operator in found for name in vars(operator.builtinOptions)]
    if not fields:
        return other_operator(model, rng)
    table, name = rng.choice(fields)
    value = getattr(table, name)
    if isinstance(value, bool):
        setattr(table, name, not value)
    elif isinstance(value, float):
        setattr(table, name, rng.choice([0.0, -1.0, 1e30, float("nan"), float("inf")]))
    elif isinstance(value, int):
        setattr(table, name, rng.choice([*NUMBERS[:5]] if -128 <= value < 128 and rng.random() < 0.5 else NUMBERS))
    elif value is not None and len(value):
        table.__dict__[name] = np.array([rng.choice(NUMBERS), *value[1:]], np.int32)
    return None


def other_tensor(model: Any, rng: random.Random) -> None:
    """A tensor with another shape, type, place, scale, or of a special kind."""
    tensor, how = rng.choice(model.subgraphs[0].tensors), rng.randrange(8)
    shape = [] if tensor.shape is None else list(tensor.shape)
    if how < 2 and shape:
        shape[rng.randrange(len(shape))] = rng.choice(NUMBERS)
        tensor.shape = np.array(shape, np.int32)
    elif how == 2:
        tensor.shape = np.array(shape[1:] if rng.random() < 0.5 else [*shape, 1], np.int32)
    elif how == 3:
        tensor.type = rng.choice([*enum_names(schema.TensorType), 99])
    elif how == 4:
        tensor.buffer = rng.choice([0, 99, rng.randrange(len(model.buffers))])
    elif how == 5:
        tensor.name = rng.choice([None, "", "x", "y0", "n" * 3000, "a;b"])
    elif how == 6:
        setattr(tensor, rng.choice(["isVariable", "externalBuffer"]), 1)
    elif tensor.quantization is not None:
        field = rng.choice(["scale", "zeroPoint", "quantizedDimension"])
        values = {"scale": [rng.choice([0.0, -1.0, 1e-30, 1e30])], "zeroPoint": [rng.choice(NUMBERS)]}
        setattr(tensor.quantization, field, values.get(field, rng.choice(NUMBERS)))


def other_values(model: Any, rng: random.Random) -> None:
    found = [buffer for buffer in model.buffers if buffer.data is not None and len(buffer.data)]
    if not found:
        return other_tensor(model, rng)
    buffer = rng.choice(found)
    raw = bytearray(np.asarray(buffer.data, np.uint8).tobytes())
    if rng.random() < 0.2:
        raw = raw[: len(raw) // 2]
    elif rng.random() < 0.5 and len(raw) >= 4:
        at = 4 * rng.randrange(len(raw) // 4)
        raw[at : at + 4] = int(rng.choice(NUMBERS)).to_bytes(4, "little", signed=True)
    else:
        raw = bytearray(flip(bytes(raw), rng))
    buffer.data = np.frombuffer(bytes(raw), np.uint8)
    return None


def other_order(model: Any, rng: random.Random) -> None:
    """Operators elsewhere, gone or doubled; other ends; another network beside."""
    graph, how = model.subgraphs[0], rng.randrange(5)
    if how == 0:
        rng.shuffle(graph.operators)
    elif how == 1 and graph.operators:
        graph.operators.pop(rng.randrange(len(graph.operators)))
    elif how == 2 and graph.operators:
        graph.operators.append(rng.choice(graph.operators))
    elif how == 3:
        side = rng.choice(["inputs", "outputs"])
        setattr(graph, side, np.array([rng.randrange(len(graph.tensors))], np.int32))
    else:
        model.subgraphs.append(graph)


FIELDS: tuple[Callable[[Any, random.Random], None], ...] = (
    *(other_operand, other_operator, other_option, other_option, other_tensor, other_tensor),
    *(other_values, other_values, other_order),
)


def fields(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice([1, 1, 2, 3])):
        model = unpacked(data)
        rng.choice(FIELDS)(model, rng)
        try:
            data = pack(model)
        except (ValueError, TypeError):  # what no file can hold
            continue
    return data


DAMAGE: dict[str, Callable[[bytes, random.Random], bytes]] = {"flip": flip, "cut": cut, "fields": fields}


# -- one file ----------------------------------------------------------------------------------------------------------
def make_case(seed: int, index: int) -> tuple[bytes, bytes]:
    """(original, damaged file) number `index` of a campaign."""
    rng = random.Random(f"{seed} {index}")
    data = drawn(rng)
    return data, DAMAGE[KINDS[index % len(KINDS)]](data, rng)


def settings(data: bytes) -> str:
    """An ini that takes whatever the original's inputs and outputs are."""
    graph = unpacked(data).subgraphs[0]
    inputs, outputs = ([graph.tensors[i].name for i in side] for side in (graph.inputs, graph.outputs))
    given = {"training_input_formats": "RAWDATA_F32_NHWC", "input_formats": "RAWDATA_F32_NHWC", "quantizations": "TRUE"}
    return ini(dict.fromkeys(inputs, given), dict.fromkeys(outputs, {"dequantizations": "TRUE"}))


def try_one(seed: int, index: int) -> str:
    """What ConvertTool makes of file number `index`: converted or refused. Raises Finding where it, or show_model_info,
    does anything else."""
    original, data = make_case(seed, index)
    with tempfile.TemporaryDirectory(prefix="sgs_fuzz_") as folder:
        file, config = Path(folder, "damaged.tflite"), Path(folder, "damaged.ini")
        file.write_bytes(data)
        config.write_text(settings(original), encoding="utf-8")
        options = [
            f"--model_file={file}",
            f"--input_config={config}",
            f"--output_file={folder}",
            "--soc_version=pcupid",
        ]
        real = ["--dequantize"] if index % 2 else []
        code = exit_code(convert_tool.main, ["tflite", *options, *real])
        exit_code(show_model_info.main, [str(file)])
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
    sys.exit(FUZZ.main("Damaged TFLite files against ConvertTool and show_model_info.", files=1000))
