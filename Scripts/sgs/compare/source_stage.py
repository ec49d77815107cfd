"""Source models as stages: the framework's own values of what a network is converted from, in its own layouts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from sgs.compare.graph_values import GraphValues
from sgs.compare.litert_values import LiteRtValues, litert_there
from sgs.compare.onnx_values import OnnxValues
from sgs.compare.stage import Stage, StageTensor
from sgs.config.fit import name_problems
from sgs.config.input_config import STAGE as INI
from sgs.config.input_config import InputConfig
from sgs.data.feed import float_inputs
from sgs.data.images import Sample
from sgs.data.preprocess import Preprocessor
from sgs.errors import raise_all
from sgs.frontends.onnx_import import import_model
from sgs.frontends.onnx_layout import SourceLayout, SourceLayouts
from sgs.frontends.onnx_model import Port, Shape, SourceModel, input_ports
from sgs.frontends.onnx_surgery import NO_SURGERY, Surgery, operate
from sgs.frontends.onnx_walk import Layouts
from sgs.frontends.platforms import platform_named
from sgs.ir.permute import NCHW_TO_NHWC, NHWC_TO_NCHW
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.pipelines import asked


@dataclass(frozen=True)
class Source:
    """What is dumped of which model, as `pipelines.convert` is told it."""

    platform: str
    values: Mapping[str, Any]
    input_shapes: Sequence[Sequence[int]] | None = None
    source_layouts: Layouts = field(default_factory=dict)
    surgery: Surgery = NO_SURGERY


class Values(Protocol):
    """Runs a source model."""

    runner: str  # whose values they are
    rounded: Collection[str]  # see Stage

    def described(self) -> Iterator[StageTensor]: ...
    def tensors(self, feeds: Mapping[str, Array], wanted: Collection[str]) -> Iterator[tuple[str, Array]]: ...


@dataclass(frozen=True)
class _Fed:
    """An input as scripts give it, in the layout of the ini."""

    shape: Shape
    dtype: DType


class SourceStage(Stage):
    """The stage of a source model. Raises UserError for a model that cannot be
    read or run, and for an ini that does not go with it."""

    def __init__(self, source: Source, config: InputConfig) -> None:
        row = platform_named(source.platform, stage="convert")
        values = row.complete(source.values)
        read = row.load(values, asked(config, source.input_shapes, source.surgery))
        surgery = NO_SURGERY if row.takes_surgery else source.surgery
        model = operate(read, surgery)
        inner = {name for node in read.proto.graph.node for name in node.output}
        sides = [[port.name for port in side] for side in (model.inputs, model.outputs)]
        raise_all(name_problems(config, *sides, inner=inner, all_outputs=False), stage=INI, file=config.path)
        self.path, self.kind = read.path, row.kind.split()[0]
        self.inputs, self.outputs = ([spec.name for spec in side] for side in (config.inputs, config.outputs))
        shapes = None if row.takes_shapes else source.input_shapes
        self._config = config
        self._ports = input_ports(model, shapes, self.inputs, surgery.input_shapes)
        layouts = SourceLayouts(model.proto, {**model.layouts, **source.source_layouts})
        self._layouts = {port.name: layouts.of_input(port.name) for port in self._ports}
        if model.format == "onnx":
            self._values: Values = OnnxValues(model, self._ports)
        elif litert_there() and not values["dequantize"] and surgery == NO_SURGERY:
            self._values = LiteRtValues(model, self._ports, [*self.inputs, *self.outputs])
        else:
            self._values = _Imported(model, self._ports, self.outputs, layouts)
        self.runner = self._values.runner
        self.rounded = self._values.rounded

    def _described(self) -> Iterator[StageTensor]:
        return self._values.described()

    def feeds(self, preprocessors: Sequence[Preprocessor], sample: Sample) -> dict[str, Array]:
        specs = {spec.name: spec for spec in self._config.inputs}
        fed = {port.name: _fed(port, specs[port.name].layout, self._layouts[port.name]) for port in self._ports}
        arrays = float_inputs(self._config, preprocessors, sample, fed)
        return {
            port.name: _turned(arrays[port.name], specs[port.name].layout, self._layouts[port.name]).astype(
                port.dtype, copy=False
            )
            for port in self._ports
        }

    def _tensors(self, feeds: Mapping[str, Array], wanted: Collection[str]) -> Iterator[tuple[str, Array]]:
        return self._values.tensors(feeds, wanted)


class _Imported:
    """The values of a model whose framework is not there, as it is imported: the untouched graph."""

    runner = "this toolchain's import"
    rounded: Collection[str] = ()

    def __init__(self, model: SourceModel, ports: Sequence[Port], outputs: list[str], layouts: SourceLayouts) -> None:
        graph = import_model(
            model,
            input_shapes={port.name: port.shape or () for port in ports},
            input_names=[port.name for port in ports],
            output_names=outputs,
            input_layouts={port.name: layouts.of_input(port.name) for port in ports},
            output_layouts={name: layouts.of_output(name) for name in outputs},
        )
        values = GraphValues(graph, real=True)
        self.described: Callable[[], Iterator[StageTensor]] = values.described
        self.tensors = values.tensors


def _fed(port: Port, here: str, there: SourceLayout) -> _Fed:
    shape, kind = port.shape or (), np.dtype(port.dtype)
    if len(shape) == 4 and here != there:
        shape = tuple(shape[axis] for axis in (NCHW_TO_NHWC if there == "NCHW" else NHWC_TO_NCHW))
    return _Fed(shape, DType.FLOAT32 if kind.kind == "f" else DType.of(kind))


def _turned(value: Array, here: str, there: SourceLayout) -> Array:
    if value.ndim != 4 or here == there:
        return value
    return np.ascontiguousarray(value.transpose(NHWC_TO_NCHW if there == "NCHW" else NCHW_TO_NHWC))
