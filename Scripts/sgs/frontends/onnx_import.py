"""ONNX → graph: the model as it is or after onnxsim, cut and shaped as asked, and the walk over its nodes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import sgs.ops  # noqa: F401  (fills the tables)
from sgs.errors import UnsupportedOperator, UserError, raise_all
from sgs.frontends.onnx_model import (
    SourceModel,
    input_ports,
    load_model,
)
from sgs.frontends.onnx_simplify import simplified
from sgs.frontends.onnx_surgery import NO_SURGERY, Surgery, check_shapes, operate
from sgs.frontends.onnx_walk import ImportWalk, Layouts
from sgs.ir.graph import Graph

_log = logging.getLogger(__name__)


def import_onnx(
    path: str | Path,
    *,
    input_shapes: Sequence[Sequence[int]] | Mapping[str, Sequence[int]] | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    input_layouts: Layouts | None = None,
    output_layouts: Layouts | None = None,
    source_layouts: Layouts | None = None,
    skip_simplify: bool = False,
    force_simplify: bool = False,
    surgery: Surgery = NO_SURGERY,
) -> Graph:
    """Import an ONNX file. The graph is not yet optimised.

    Args:
        input_shapes: static shapes in the source's layout, by name or one per input; needed where the file has none.
        input_names, output_names: the model's inputs and outputs in the graph's order; default: the file's.
        input_layouts, output_layouts: layout of the graph's own rank-4 inputs and outputs, by name; default "NHWC".
        source_layouts: layout of rank-4 inputs and outputs in the model, where `onnx_layout`'s rule would be wrong.
        skip_simplify: do not try onnxsim. It is tried only on models that cannot be imported without it.
        force_simplify: try onnxsim first, and the model itself only if that does not help.
        surgery: the part of the model that is meant, and extents of its free dimensions.

    Raises:
        UserError: for anything wrong with the file or the arguments; Problems when there are several.
    """
    return import_model(
        load_model(Path(path)),
        input_shapes=input_shapes,
        input_names=input_names,
        output_names=output_names,
        input_layouts=input_layouts,
        output_layouts=output_layouts,
        source_layouts=source_layouts,
        skip_simplify=skip_simplify,
        force_simplify=force_simplify,
        surgery=surgery,
    )


def import_model(
    source: SourceModel,
    *,
    input_shapes: Sequence[Sequence[int]] | Mapping[str, Sequence[int]] | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    input_layouts: Layouts | None = None,
    output_layouts: Layouts | None = None,
    source_layouts: Layouts | None = None,
    skip_simplify: bool = False,
    force_simplify: bool = False,
    surgery: Surgery = NO_SURGERY,
) -> Graph:
    """Import a model that is in memory; see `import_onnx`."""
    whole, source = source, operate(source, surgery)
    _refuse_other_values(source)
    inputs = _ordered(source, "input", [port.name for port in source.inputs], input_names)
    outputs = _ordered(source, "output", [port.name for port in source.outputs], output_names)
    ports = input_ports(source, input_shapes, inputs, surgery.input_shapes)
    check_shapes(whole, surgery, ports)
    wanted = {**(input_layouts or {}), **(output_layouts or {})}

    def walk(model: SourceModel) -> ImportWalk:
        return ImportWalk(model, ports, outputs, wanted, source_layouts or {}, surgery.output_shapes)

    skip_simplify = skip_simplify or source.format != "onnx"
    problems: list[UserError] | None = None
    for simplify in (True, False) if force_simplify else (False,) if skip_simplify else (False, True):
        if simplify and problems is not None:
            if not any(isinstance(problem, UnsupportedOperator) for problem in problems):
                break
            _log.info("%d problems; trying again after onnxsim", len(problems))
        model = simplified(source, ports) if simplify else source
        if model is None:
            continue
        attempt = walk(model)
        found = attempt.run()
        if not found:
            return attempt.graph
        problems = found if problems is None else min(problems, found, key=len)
    raise_all(problems or [], stage="convert", file=source.path)
    raise AssertionError("unreachable")


def _refuse_other_values(source: SourceModel) -> None:
    """Raise UserError for inputs that are no tensors: sequences, optional values, maps."""
    found = [(value.name, value.type.WhichOneof("value")) for value in source.proto.graph.input]
    problems: list[UserError] = [
        UnsupportedOperator(
            f"input '{name}' is {kind.removesuffix('_type').replace('_', ' ')}, which no graph holds",
            stage="convert",
            file=source.path,
            remedy="give the network tensors",
        )
        for name, kind in found
        if kind not in (None, "tensor_type")
    ]
    raise_all(problems, stage="convert", file=source.path)


def _ordered(source: SourceModel, what: str, present: list[str], wanted: Sequence[str] | None) -> list[str]:
    """The model's input or output names in the caller's order. Every input must be named; outputs may be left out."""
    if wanted is None:
        return present
    told = f"{what}s of the model: {', '.join(present)}"
    problems = [(f"'{name}' is not an {what} of the model", told) for name in wanted if name not in present]
    twice = [name for name in dict.fromkeys(wanted) if list(wanted).count(name) > 1]
    problems += [(f"{what} '{name}' is named twice", told) for name in twice]
    if what == "input":
        problems += [(f"input '{name}' is missing", told) for name in present if name not in wanted]
    raise_all(
        [UserError(reason, stage="convert", file=source.path, remedy=remedy) for reason, remedy in problems],
        stage="convert",
        file=source.path,
    )
    return list(wanted)
