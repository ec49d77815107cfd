"""What `calibrator_custom` offers: models as objects with set_input, invoke and get_output.

Every error is a ValueError that says what was expected and what was got.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from sgs.config.chips import Chip, load_chip
from sgs.config.input_config import CHANNELS, ConvSpec, InputSpec
from sgs.data.board import to_board
from sgs.errors import UserError
from sgs.ir import Graph, Tensor
from sgs.numeric.quantise import Array, QuantParams
from sgs.numeric.types import DType
from sgs.quant.edit import build_fixed, mac_nodes
from sgs.quant.levels import forced_bits
from sgs.quant.parameters import parse_parameters
from sgs.quant.plan import MacChoice, QuantPlan, TensorRange
from sgs.quant.prepare import prepare
from sgs.quant.unrounded import unrounded
from sgs.registry import QUANTISE
from sgs.simulation import Kind, Port, Simulator

Details = dict[str, Any]
_SELECTED: list[Chip] = []  # the chip of this process, once chosen


@contextmanager
def _value_errors() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise ValueError(error.render()) from error


def set_soc_version(name: str) -> None:
    """Choose the chip, once for the whole process. Raises ValueError for an unknown chip, or another than before."""
    with _value_errors():
        chip = load_chip(name)
    if _SELECTED and chip != _SELECTED[0]:
        raise ValueError(f"set_soc_version can be called once: expected {_SELECTED[0].name}, got {chip.name}")
    _SELECTED[:] = [chip]


def check_quant_param(parameters: list[Details]) -> None:
    """Check quantisation parameters, a list of {"name", "min", "max", "bit"[, "data"]}, before they are imported.

    What can be wrong whatever the network is: keys, types, lengths that differ, min above max, bits, entries that are
    there twice. Raises ValueError listing it all.
    """
    with _value_errors():
        parse_parameters(parameters)


def convert_to_input_formats(img: Array, detail: Details) -> Array:
    """What `set_input` takes for what a preprocess script returns with norm=False.

    Args:
        img: of a picture: its pixels, uint8, channels as in training, in the layout of the detail, with or without the
            axis of frames. Of RAWDATA, and for a float model: the data itself.
        detail: an entry of `get_input_details()`.

    Returns:
        A contiguous array: for a picture the bytes of `input_formats`, aligned.

    Raises:
        ValueError: another shape or dtype than the detail asks for, with both.
    """
    name, wanted, shape = detail["name"], np.dtype(detail["dtype"]), tuple(int(v) for v in detail["shape"])
    if not isinstance(img, np.ndarray) or img.dtype != wanted:
        got = img.dtype if isinstance(img, np.ndarray) else type(img).__name__
        raise ValueError(f"input '{name}': expected a numpy.ndarray of {wanted}, got {got}")
    if img.ndim + 1 == len(shape) and shape[0] == 1:
        img = img[np.newaxis]
    if detail.get("training_input_formats") not in CHANNELS:
        if img.shape != shape:
            raise ValueError(f"input '{name}': expected shape {list(shape)}, got {list(img.shape)}")
        return np.asarray(img, order="C")
    spec = InputSpec(
        name,
        detail["training_input_formats"],
        detail["input_formats"],
        width_alignment=detail["input_width_alignment"],
        height_alignment=detail["input_height_alignment"],
        layout=detail["layouts"],
    )
    if img.ndim != 4 or img.shape[spec.channel_axis] != spec.channels or spec.fed_shape(img.shape) != shape:
        expected = f"a {spec.training_format} picture [{spec.layout}] that makes {spec.input_format} of {list(shape)}"
        raise ValueError(f"input '{name}': expected {expected}, got shape {list(img.shape)}")
    return to_board(spec, img)


class ModelRunner:
    """Runs one model file.

    Args:
        path: of the file; what it must hold is up to the class.
        threads: of one run, 0 for one per core.

    Raises:
        ValueError: the file is missing, damaged or of another kind.
    """

    kind: Kind

    def __init__(self, path: str | os.PathLike[str], threads: int = 0) -> None:
        with _value_errors():
            self._simulator = Simulator(path, threads=threads)
        if self._simulator.kind != self.kind:
            raise ValueError(f"{os.fspath(path)}: expected {_ARTICLE[self.kind]}, got {_ARTICLE[self._simulator.kind]}")
        self._feeds: dict[str, Array] = {}
        self._results: dict[str, Array] | None = None

    def get_input_details(self) -> list[Details]:
        """One dict an input, in order: at least name, index, dtype, shape."""
        return [self._details(index, port) for index, port in enumerate(self._simulator.inputs)]

    def get_output_details(self) -> list[Details]:
        """One dict an output, in order: at least name, index, dtype, shape."""
        return [self._details(index, port) for index, port in enumerate(self._simulator.outputs)]

    def set_input(self, index: int, data: Array) -> None:
        """Set an input. Raises ValueError for an index, a shape or a dtype that `get_input_details` does not list."""
        port = _at(self._simulator.inputs, index, "input")
        self._feeds[port.name] = self._simulator.checked(port, data).copy()
        self._results = None

    def invoke(self) -> None:
        """Run the model once. Raises ValueError when an input was not set."""
        missing = [port.name for port in self._simulator.inputs if port.name not in self._feeds]
        if missing:
            raise ValueError(
                f"expected set_input for {len(self._simulator.inputs)} inputs, got none for {', '.join(missing)}"
            )
        with _value_errors():
            self._results = self._simulator.run(self._feeds)

    def get_output(self, index: int) -> Array:
        """An output of the last run. Raises ValueError for an index out of range, or when these inputs were not run."""
        port = _at(self._simulator.outputs, index, "output")
        if self._results is None:
            raise ValueError("expected invoke() after set_input, got get_output before it")
        return self._results[port.name].copy()

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

    def __init__(self, path: str | os.PathLike[str], threads: int = 0) -> None:
        super().__init__(path, threads)
        image = self._simulator.image
        assert image is not None
        if _SELECTED and image.chip != _SELECTED[0].name:
            raise ValueError(f"{os.fspath(path)}: expected an image for {_SELECTED[0].name}, got one for {image.chip}")

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
    if not 0 <= index < len(ports):
        raise ValueError(f"expected {what} index 0 to {len(ports) - 1}, got {index}")
    return ports[index]


def _shape(shape: tuple[int, ...]) -> Array:
    return np.array(shape, np.int32)


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
