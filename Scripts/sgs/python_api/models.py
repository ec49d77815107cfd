"""Models as objects with set_input, invoke and get_output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from operator import index as whole
from typing import Any

import numpy as np

from sgs.config.input_config import ConvSpec, InputConfig
from sgs.ir import Graph, Tensor
from sgs.numeric.quantise import Array, QuantParams
from sgs.numeric.types import DType
from sgs.pipelines import calibratable, load_config
from sgs.python_api.checks import AnyPath, path_of, value_errors
from sgs.python_api.chip import selected_chip
from sgs.quant.edit import build_fixed, mac_nodes
from sgs.quant.levels import forced_bits
from sgs.quant.plan import MacChoice, QuantPlan, TensorRange
from sgs.quant.prepare import prepare
from sgs.quant.unrounded import unrounded
from sgs.registry import QUANTISE
from sgs.simulation import Kind, Port, Simulator

Details = dict[str, Any]


@dataclass
class _State:
    """Inputs that were set, and outputs of the last run unless an input was set since."""

    feeds: dict[str, Array] = field(default_factory=dict)
    results: dict[str, Array] | None = None


Record = Callable[["Calibrator", dict[str, Array]], None]


@dataclass
class _Private:
    """States of models for one user, and who is told what calibrators are fed."""

    record: Record | None
    states: dict[ModelRunner, _State] = field(default_factory=dict)


_PRIVATE: ContextVar[_Private | None] = ContextVar("private", default=None)


@contextmanager
def private_states(record: Record | None = None) -> Iterator[None]:
    """Within the block, and in this thread, every model has a state of its own, which begins with the inputs that were
    set outside. `record` is called with what a calibrator is fed whenever it was invoked."""
    token = _PRIVATE.set(_Private(record))
    try:
        yield
    finally:
        _PRIVATE.reset(token)


class ModelRunner:
    """Runs one model file.

    Args:
        path: of the file; what it must hold is up to the class.
        threads: of one run, 0 for one per core.

    Raises:
        ValueError: the file is missing, damaged or of another kind.
    """

    kind: Kind

    def __init__(self, path: AnyPath, threads: int = 0) -> None:
        self.path = path_of(path, "path")
        with value_errors():
            self._simulator = Simulator(self.path, threads=threads)
        if self._simulator.kind != self.kind:
            raise ValueError(f"{self.path}: expected {_ARTICLE[self.kind]}, got {_ARTICLE[self._simulator.kind]}")
        self._shared = _State()

    @property
    def _state(self) -> _State:
        private = _PRIVATE.get()
        if private is None:
            return self._shared
        return private.states.setdefault(self, _State(dict(self._shared.feeds)))

    def get_input_details(self) -> list[Details]:
        """One dict an input, in order: at least name, index, dtype, shape; last `picture_shape`, where pixels have
        another one."""
        ports = self._simulator.inputs
        return [{**self._details(index, port), **_pixels(port)} for index, port in enumerate(ports)]

    def get_output_details(self) -> list[Details]:
        """One dict an output, in order: at least name, index, dtype, shape."""
        return [self._details(index, port) for index, port in enumerate(self._simulator.outputs)]

    def set_input(self, index: int, data: Array) -> None:
        """Set an input. Raises ValueError for an index, a shape or a dtype that `get_input_details` does not list."""
        port = _at(self._simulator.inputs, index, "input")
        values = self._simulator.checked(port, data)
        state = self._state
        state.feeds[port.name] = values.copy()
        state.results = None

    def invoke(self) -> None:
        """Run the model once. Raises ValueError when an input was not set."""
        state = self._state
        missing = [port.name for port in self._simulator.inputs if port.name not in state.feeds]
        if missing:
            raise ValueError(
                f"expected set_input for {len(self._simulator.inputs)} inputs, got none for {', '.join(missing)}"
            )
        with value_errors():
            state.results = self._simulator.run(state.feeds)

    def get_output(self, index: int) -> Array:
        """An output of the last run. Raises ValueError for an index out of range, or when these inputs were not run."""
        port = _at(self._simulator.outputs, index, "output")
        results = self._state.results
        if results is None:
            raise ValueError("expected invoke() after set_input, got get_output before it")
        return results[port.name].copy()

    def get_tensor_details(self) -> list[Details]:
        """One dict a tensor of the model."""
        raise NotImplementedError

    def _details(self, index: int, port: Port) -> Details:
        details: Details = {"name": port.name, "index": index, "dtype": port.dtype.numpy.type, "layouts": port.layout}
        details["shape"] = _shape(port.shape)
        if port.spec is not None:
            details["training_input_formats"] = port.spec.training_format
            details["input_formats"] = port.spec.input_format
            details["input_width_alignment"] = port.spec.width_alignment
            details["input_height_alignment"] = port.spec.height_alignment
        if port.quant is not None:
            details["quantization"] = _pairs(port.quant)[0]
        return details


class FloatSimulator(ModelRunner):
    """A float .sim."""

    kind = "Float"

    def _details(self, index: int, port: Port) -> Details:
        return {"index": index, "shape": _shape(port.shape), "name": port.name, "dtype": port.dtype.numpy.type}

    def get_tensor_details(self) -> list[Details]:
        """Per tensor: name, shape, dtype, and qtype, its type in a fixed model without 16-bit promotions."""
        graph = self._simulator.graph
        assert graph is not None
        types = planned_types(graph, self._simulator.config.conv)
        return [
            {"name": t.name, "shape": _shape(t.shape), "dtype": t.dtype.name, "qtype": types[t.name].name}
            for t in graph.tensors.values()
        ]


class Calibrator(FloatSimulator):
    """A float .sim and its input_config.ini: a model of `SIM_Calibrator`, which runs as a float simulator does.

    Raises ValueError where the model is not a float .sim, cannot become fixed, or does not go with the ini.
    """

    def __init__(self, model_path: AnyPath, input_config_path: AnyPath) -> None:
        super().__init__(model_path)
        graph = self._simulator.graph
        assert graph is not None
        if self._simulator.stage != "float":
            raise ValueError(f"{self.path}: expected a float .sim, got a {self._simulator.stage} one")
        with value_errors():
            self.config: InputConfig = load_config(path_of(input_config_path, "input_config_path"))
            self.float_graph: Graph = calibratable(graph, self.config)

    @property
    def input_names(self) -> list[str]:
        """In order."""
        return [port.name for port in self._simulator.inputs]

    def invoke(self) -> None:
        """Run the model once. Raises ValueError when an input was not set."""
        super().invoke()
        private = _PRIVATE.get()
        if private is not None and private.record is not None:
            private.record(self, self._state.feeds)

    def get_tensor_details(self) -> list[Details]:
        """Per tensor: dtype, name, qtype (its type in a fixed model without 16-bit promotions) and shape."""
        return [{key: details[key] for key in sorted(details)} for details in super().get_tensor_details()]


class FixedSimulator(ModelRunner):
    """A fixed .sim."""

    kind = "Fixed"

    def get_tensor_details(self) -> list[Details]:
        """Per tensor: name, shape, dtype, min and max of each channel, quantization as (scale, zero point) pairs."""
        graph = self._simulator.graph
        assert graph is not None
        return [_quantised_details(tensor) for tensor in graph.tensors.values()]


class OfflineSimulator(ModelRunner):
    """An offline .img. Raises ValueError for one that was compiled for another chip than `set_soc_version` chose."""

    kind = "Offline"

    def __init__(self, path: AnyPath, threads: int = 0) -> None:
        super().__init__(path, threads)
        image, chip = self._simulator.image, selected_chip()
        assert image is not None
        if chip is not None and image.chip != chip.name:
            raise ValueError(f"{self.path}: expected an image for {chip.name}, got one for {image.chip}")

    def _details(self, index: int, port: Port) -> Details:
        batches = self._simulator.batches
        sizes = batches.sizes[0] if batches.mode == "n_buf" else list(batches.sizes)
        return {**super()._details(index, port), "batch": sizes, "batch_mode": batches.mode}

    def get_tensor_details(self) -> list[Details]:
        """As for the fixed model, of every tensor that a command reads or writes."""
        image = self._simulator.image
        assert image is not None
        return [_quantised_details(Tensor(t.name, t.shape, t.dtype, quant=t.quant)) for t in image.tensors]


_ARTICLE: dict[Kind, str] = {"Float": "a float .sim", "Fixed": "a fixed .sim", "Offline": "an offline .img"}


def _at(ports: tuple[Port, ...], index: int, what: str) -> Port:
    try:
        position = whole(index)
    except TypeError:
        position = -1
    if not 0 <= position < len(ports):
        raise ValueError(f"expected {what} index 0 to {len(ports) - 1}, got {index!r}")
    return ports[position]


def _shape(shape: tuple[int, ...]) -> Array:
    return np.array(shape, np.int32)


def _pixels(port: Port) -> Details:
    return {} if port.picture_shape in ((), port.shape) else {"picture_shape": _shape(port.picture_shape)}


def _pairs(quant: QuantParams) -> list[tuple[float, int]]:
    return [(float(scale), int(zero)) for scale, zero in zip(quant.scale, quant.zero_point, strict=True)]


def _quantised_details(tensor: Tensor) -> Details:
    details: Details = {"name": tensor.name, "shape": _shape(tensor.shape), "dtype": tensor.dtype.name}
    quant = tensor.quant
    if quant is None:
        return {**details, "min": [], "max": [], "quantization": []}
    low, high = quant.low, quant.high
    if not low.size or not high.size:  # not recorded: what the codes can express
        low = (tensor.dtype.qmin - quant.zero_point) * quant.scale
        high = (tensor.dtype.qmax - quant.zero_point) * quant.scale
    return {**details, "min": [float(v) for v in low], "max": [float(v) for v in high], "quantization": _pairs(quant)}


def planned_types(graph: Graph, conv: ConvSpec) -> dict[str, DType]:
    """The type that each tensor of a float graph has in its fixed graph, before any promotion to 16 bit.

    Tensors that disappear into a table on the way are listed as the INT16 that tables read.
    """
    prepared = prepare(unrounded(graph))
    forced = forced_bits(prepared, conv)
    macs = {node.outputs[0]: MacChoice(forced.get(node.outputs[0], 8), np.ones(1)) for node in mac_nodes(prepared)}
    ranges = {tensor.name: TensorRange(-1.0, 1.0) for tensor in prepared.activations()}
    fixed = build_fixed(prepared, QuantPlan(ranges, {}, macs))
    types = {t.name: DType.INT16 if t.dtype.is_float else t.dtype for t in graph.tensors.values()}
    types |= {name: fixed[name].dtype for name in types if name in fixed.tensors}
    for node in mac_nodes(prepared):
        rule = QUANTISE[node.op]
        wide = macs[node.outputs[0]].bits == 16
        for operand, dtype in ((rule.weight, (DType.INT8, DType.INT16)), (rule.bias, (DType.INT32, DType.INT64))):
            name = node.inputs[operand] if operand < len(node.inputs) else None
            if name in types:
                types[name] = dtype[wide]
    return types
