"""Programs of torch.export → ONNX in memory, by PyTorch's own exporter, with the names that are asked for."""

from __future__ import annotations

import ast
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import GraphProto, ModelProto, NodeProto

from sgs.errors import UnsupportedOperator, UserError
from sgs.frontends.model_file import first_line
from sgs.frontends.onnx_message import bodies_of
from sgs.frontends.onnx_model import Judge
from sgs.frontends.platforms import Asked
from sgs.numeric.quantise import Array

_ROUNDINGS = 16  # errors of rounding of the coarsest type of floats that are no fault
_SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class Program:
    """A network of static shapes. `inputs`: its tensors' names in order, `trees`: what the author's dictionaries call
    the outputs, "" where nothing does; `dtypes` of the inputs. `rounding`: the relative error of the coarsest type of
    floats in it. `translate`: the network as ONNX; `run`: the inputs → the outputs, as the file itself computes them.
    `told`: what a user may want to know, `remarks`: what he had better."""

    inputs: tuple[str, ...]
    trees: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...]
    rounding: float
    translate: Callable[[], ModelProto]
    run: Callable[[Sequence[Any]], list[Any]]
    told: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def coarsest(tensors: Iterable[Any]) -> float:
    """The relative rounding error of the coarsest type of floats among tensors; other things have none."""
    dtypes = {getattr(tensor, "dtype", torch.bool) for tensor in tensors}
    return max((torch.finfo(dtype).eps for dtype in dtypes if dtype.is_floating_point), default=0.0)


def translated(program: Program) -> ModelProto:
    """The program as ONNX, inputs and outputs under its own names. Raises UserError where PyTorch cannot translate
    it."""
    proto = program.translate()
    _name_nodes(proto.graph)
    inputs = list(program.inputs)
    made = [value.name for value in proto.graph.output]
    _rename(proto.graph, inputs, _output_names(inputs, program.trees, made))
    return proto


def to_onnx(exported: Any, path: Path) -> ModelProto:
    """A program of torch.export as ONNX. Raises UserError where PyTorch cannot translate it."""
    try:
        found = torch.onnx.export(exported, dynamo=True, verbose=False)
    except Exception as error:  # PyTorch raises whatever it runs into
        raise _untranslatable(error, path) from error
    proto: ModelProto = found.model_proto
    return proto


def script_to_onnx(script: Any, tensors: Sequence[Any], outputs: Sequence[str], path: Path) -> ModelProto:
    """A TorchScript network as ONNX, by the exporter that came before torch.export. Raises UserError where it cannot
    translate it."""
    content = io.BytesIO()
    try:
        torch.onnx.export(script, tuple(tensors), content, dynamo=False, output_names=list(outputs))
    except Exception as error:  # PyTorch raises whatever it runs into
        raise _untranslatable(error, path) from error
    proto: ModelProto = ModelProto.FromString(content.getvalue())
    return proto


def _untranslatable(error: Exception, path: Path) -> UserError:
    """What the chain of PyTorch's errors says of the operator that ONNX has no word for."""
    chain: list[BaseException] = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    text = "\n".join(map(str, chain))
    operator = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'|Exporting the operator '([^']+)'", text)
    node = re.search(r"translating node %(\w+) ", text)
    label = node.group(1) if node else None
    remedy = "export a network that does without, with torch.export"
    if operator is None:
        reason = f"PyTorch cannot translate it to ONNX: {first_line(chain[-1])}"
        return UserError(reason, stage="convert", file=path, node=label, remedy=remedy)
    reason = f"PyTorch cannot translate the operator {operator.group(1) or operator.group(2)} to ONNX"
    return UnsupportedOperator(reason, stage="convert", file=path, node=label, remedy=remedy)


# -- names -------------------------------------------------------------------------------------------------------------
def _name_nodes(graph: GraphProto) -> None:
    """Name nodes by the modules that they are of: layer1.0.conv1; by module and operator where one has several, and
    with a number where such a name is taken."""
    scopes = [_scopes(node) for node in graph.node]
    nodes_in = Counter(found[-2] for found in scopes if found)
    used: Counter[str] = Counter()
    for node, found in zip(graph.node, scopes, strict=True):
        if found:
            module, operator = found[-2:]
            name = module if module and nodes_in[module] == 1 else ".".join(filter(None, (module, operator)))
            node.name = f"{name}_{used[name]}" if used[name] else name
            used[name] += 1


def _scopes(node: NodeProto) -> list[str]:
    """The modules around an operator, from the outermost, whose name is empty, and the operator."""
    text = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
    found = [str(name) for name in ast.literal_eval(text)]
    return ["", *found] if found else []


def _output_names(inputs: Sequence[str], trees: Sequence[str], made: Sequence[str]) -> list[str]:
    """Names of the outputs: what the author's dictionaries say, or else the name that the exporter made."""
    count = Counter(trees)
    names: list[str] = []
    for index, (tree, own) in enumerate(zip(trees, made, strict=True)):
        name = tree if tree and count[tree] == 1 and tree not in made else own
        names.append(f"output_{index}" if name in inputs or name in names else name)
    return names


def name_ports(proto: ModelProto, asked: Asked) -> list[str]:
    """Give inputs and outputs the names that are asked for, by position where none of these is the network's own.
    Returns what was renamed, to tell."""
    graph, surgery, told = proto.graph, asked.surgery, []
    known = {name for node in graph.node for name in node.output} | {value.name for value in graph.input}
    sides: list[list[str]] = []
    for what, values, wanted, cut in (
        ("input", graph.input, asked.inputs, surgery.inputs),
        ("output", graph.output, asked.outputs, surgery.outputs),
    ):
        own = [value.name for value in values]
        if wanted is None or cut or len(wanted) != len(own) or not known.isdisjoint(wanted):
            sides.append(own)
            continue
        sides.append(list(wanted))
        told += [f"{what} '{old}' of the network is '{new}'" for old, new in zip(own, wanted, strict=True)]
    _rename(graph, *sides)
    return told


def _rename(graph: GraphProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Rename inputs and outputs; inner tensors of these names get others."""
    values = [*graph.input, *graph.output]
    names = {value.name: new for value, new in zip(values, [*inputs, *outputs], strict=True)}
    used = set(_names(graph)) | set(names.values())
    for name in set(names.values()) & used - set(names):
        names[name] = next(other for i in range(len(used) + 1) if (other := f"{name}_inner{i or ''}") not in used)
    _replace(graph, names)


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and the bodies of control flow in it."""
    pending = [graph]
    while pending:
        yield (found := pending.pop())
        pending.extend(body for node in found.node for body in bodies_of(node))


def _names(graph: GraphProto) -> Iterator[str]:
    for found in _graphs(graph):
        yield from (value.name for value in (*found.input, *found.initializer))
        yield from (name for node in found.node for name in node.output)


def _replace(graph: GraphProto, names: Mapping[str, str]) -> None:
    for found in _graphs(graph):
        for value in (*found.input, *found.output, *found.value_info, *found.initializer):
            value.name = names.get(value.name, value.name)
        for node in found.node:
            for side in (node.input, node.output):
                side[:] = [names.get(name, name) for name in side]


# -- the judge ---------------------------------------------------------------------------------------------------------
def judge_of(program: Program, proto: ModelProto) -> Judge:
    """PyTorch's own run of the network, inputs and outputs under the names of its ONNX form."""
    inputs, outputs = ([value.name for value in side] for side in (proto.graph.input, proto.graph.output))

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        tensors = [torch.tensor(feeds[name]).to(dtype) for name, dtype in zip(inputs, program.dtypes, strict=True)]
        with torch.no_grad():
            results = program.run(tensors)
        return {name: _array(result) for name, result in zip(outputs, results, strict=True)}

    return Judge("PyTorch", run, max(Judge.bound, _ROUNDINGS * program.rounding))


def _array(tensor: torch.Tensor) -> Array:
    """Floats of every type as float32, which holds half precision; others as they are."""
    plain = tensor.detach().cpu()
    return np.asarray(plain.float().numpy() if plain.is_floating_point() else plain.numpy())
