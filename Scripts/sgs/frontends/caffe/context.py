"""What a row sees of one layer, and the table of the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from sgs.errors import UnsupportedOperator, UserError
from sgs.frontends.caffe.weights import shape_of, values_of
from sgs.numeric.quantise import Array
from sgs.registry import RuleTable

if TYPE_CHECKING:
    from sgs.frontends.caffe.translate import Translation

Shape = tuple[int, ...]
LARGEST_TENSOR = 2**31 - 1  # elements


@dataclass(frozen=True)
class Value:
    """A value of the ONNX graph that is made: a name of its own, its shape, and its data where it is a constant."""

    name: str
    shape: Shape
    dtype: np.dtype[Any] = field(default=np.dtype(np.float32))
    data: Array | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)


class LayerContext:
    """One layer. `layer` is its LayerParameter (see schema/caffe.proto), `bottoms` what it reads.

    A row returns its tops, in order. It makes them of ONNX operators with `emit`, whose node names are the layer's.
    """

    def __init__(self, translation: Translation, layer: Any, bottoms: Sequence[Value], blobs: Sequence[Any]) -> None:
        self.layer = layer
        self.bottoms = bottoms
        self.name: str = layer.name or next(iter(layer.top), "")
        self.type: str = layer.type
        self.batch_was = translation.batch_was  # the prototxt's batch, where it was made 1; else 1
        self._translation = translation
        self._blobs = blobs

    @property
    def bottom(self) -> Value:
        """The only bottom of a layer that takes one. Raises UserError where there are several."""
        self.check_bottoms(1)
        return self.bottoms[0]

    def check_bottoms(self, *counts: int) -> None:
        """Raise UserError unless there are as many bottoms as one of `counts`."""
        if len(self.bottoms) not in counts:
            wanted = " or ".join(map(str, counts))
            raise self.refuse(f"it has {len(self.bottoms)} bottoms, not {wanted}", "check the prototxt")

    @property
    def label(self) -> str:
        """How messages name this layer."""
        return f"{self.type} '{self.name}'"

    def refuse(self, reason: str, remedy: str = "") -> UserError:
        """The error to raise for what has no meaning here; it names the layer and the file."""
        return UnsupportedOperator(
            reason, stage="convert", file=self._translation.path, node=self.label, remedy=remedy or None
        )

    def warn(self, what: str) -> None:
        """Put something that the user should know of the layer into the log."""
        self._translation.warn(f"{self.label}: {what}")

    def positive(self, value: int, what: str) -> int:
        """A parameter that must be above 0. Raises UserError."""
        if value < 1:
            raise self.refuse(f"its {what} is {value}", f"a {what} above 0 is meant")
        return value

    def axis(self, axis: int, value: Value | None = None, *, end: bool = False) -> int:
        """An axis of a value (the first bottom), counted from the front; `end`: it may stand behind the last one.
        Raises UserError for one that the value does not have."""
        rank = (value or self.bottoms[0]).rank
        found = axis + (rank + end if axis < 0 else 0)
        if not 0 <= found < rank + end:
            raise self.refuse(f"axis {axis} is none of the {rank} of its input", "check the prototxt")
        return found

    # -- weights -------------------------------------------------------------------------------------------------------
    @property
    def blob_count(self) -> int:
        """How many blobs the weight file has for the layer."""
        return len(self._blobs)

    def blobs(self, **wanted: Shape) -> list[Array]:
        """The layer's blobs in order, float32, each of its name and shape: `blobs(weights=(8, 3, 3, 3), bias=(8,))`.

        Ones in a shape do not count. A layer without weights, another number of them and other shapes are
        reported; in their place there are zeros, so that the walk goes on and finds all problems.
        """
        self._translation.take(self)
        shapes = {name: tuple(map(int, shape)) for name, shape in wanted.items()}
        for name, shape in shapes.items():
            if prod(shape) > LARGEST_TENSOR:
                raise self.refuse(f"its {name} would have the shape {shape}", "check the prototxt")
        if not self._blobs:
            self._translation.report_missing(self)
        elif len(self._blobs) != len(shapes):
            told = f"{len(self._blobs)} blobs, and takes {len(shapes)}: {', '.join(shapes)}"
            self._report(f"in the weight file it has {told}", "is it the caffemodel of this network?")
        else:
            return [self._blob(blob, *item) for blob, item in zip(self._blobs, shapes.items(), strict=True)]
        return [_zeros(shape) for shape in shapes.values()]

    def _blob(self, blob: Any, name: str, wanted: Shape) -> Array:
        found = shape_of(blob)
        if _plain(found) != _plain(wanted):
            was, should = (f"[{','.join(map(str, shape))}]" for shape in (found, wanted))
            reason = f"{name}: the shape is {was} in the weight file, and should be {should}"
            asked = ", and can it have these --input_shapes, in NCHW?" if self._translation.reshaped else "?"
            self._report(reason, f"is it the caffemodel of this network{asked}")
            return _zeros(wanted)
        try:
            return values_of(blob).reshape(wanted)
        except ValueError as error:
            self._report(f"its {name} cannot be read: {error}", "download the caffemodel again")
            return _zeros(wanted)

    def _report(self, reason: str, remedy: str) -> None:
        self._translation.report(self.refuse(reason, remedy))

    def refuse_blobs(self) -> UserError:
        """The error for blobs of a layer that takes none."""
        reason = f"it takes no weights, and has {len(self._blobs)} in the weight file"
        return self.refuse(reason, "is it the caffemodel of this network?")

    # -- the graph that is made ----------------------------------------------------------------------------------------
    def const(self, data: Any, name: str = "constant") -> Value:
        """A constant: an array, or a list of whole numbers, such as a shape, as int64."""
        array = np.asarray(data) if isinstance(data, (np.ndarray, np.generic)) else np.array(data, np.int64)
        return self._translation.constant(f"{self.name}/{name}", array)

    def emit(self, op_type: str, inputs: Sequence[Value | None], /, **attrs: Any) -> Value:
        """Append an ONNX node of operator set `translate.OPSET`; returns its result. Attributes that are None or
        empty are left out. Raises UserError where ONNX finds the operands wrong."""
        return self.emit_many(op_type, inputs, 1, **attrs)[0]

    def emit_many(self, op_type: str, inputs: Sequence[Value | None], outputs: int, /, **attrs: Any) -> list[Value]:
        """As `emit`, a node with several results."""
        return self._translation.node(self, op_type, inputs, outputs, attrs)

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        """The value in another shape of as many elements; itself where it has it."""
        if tuple(shape) == value.shape:
            return value
        if prod(shape) != prod(value.shape):
            was, should = (f"[{','.join(map(str, s))}]" for s in (value.shape, shape))
            raise self.refuse(f"its input of shape {was} cannot have the shape {should}", "check the prototxt")
        return self.emit("Reshape", [value, self.const(list(shape), "shape")])


def _zeros(shape: Shape) -> Array:
    """Zeros that take no memory, however large the shape."""
    return np.broadcast_to(np.float32(0), shape)


def _plain(shape: Shape) -> Shape:
    """A shape without ones, which move no value: old files write [1, 1, 1, 8] where new ones have [8], forks
    [1, 8, 1, 1]."""
    return tuple(extent for extent in shape if extent != 1)


# layer type → (context) → its tops
CAFFE: RuleTable[Callable[[LayerContext], Sequence[Value]]] = RuleTable("Caffe layer")
