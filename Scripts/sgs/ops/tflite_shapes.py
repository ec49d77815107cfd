"""TFLite builtins that ask for shapes, or make tensors of them: constants, since all shapes are static."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._import import multiply, reshaped
from sgs.ops._tflite import SHAPES, integers, operand
from sgs.registry import IMPORT_TFLITE, TFLITE_EXAMPLES, ImportContext, Shape, TfliteCase

_LARGEST = 1 << 26  # elements of a constant that is made here


def _constant(ctx: ImportContext, data: Array) -> Tensor:
    return Tensor(f"{ctx.name}/constant", data.shape, DType.of(data.dtype), data)


def _int32(values: Sequence[int] | int) -> Array:
    return np.array(values, np.int32)


@IMPORT_TFLITE.row("SHAPE")
def import_shape(ctx: ImportContext) -> list[Tensor]:
    return [_constant(ctx, _int32(operand(ctx, 0).shape))]


@IMPORT_TFLITE.row("RANK")
def import_rank(ctx: ImportContext) -> list[Tensor]:
    return [_constant(ctx, _int32(len(operand(ctx, 0).shape)))]


@IMPORT_TFLITE.row("BROADCAST_ARGS")
def import_broadcast_args(ctx: ImportContext) -> list[Tensor]:
    return [_constant(ctx, _int32(np.broadcast_shapes(*(tuple(integers(ctx, i, "shape")) for i in range(2)))))]


def _filled(ctx: ImportContext, shape: Sequence[int], value: Tensor) -> Tensor:
    if min(shape, default=0) < 0 or math.prod(shape) > _LARGEST:
        raise ctx.refuse(f"a constant of shape {tuple(shape)} is too large", SHAPES)
    if value.data is None:
        return ctx.emit("BROADCAST_TO", reshaped(ctx, value, (1,) * len(shape)), shape=tuple(shape))
    return _constant(ctx, np.full(tuple(shape), value.data.reshape(-1)[0]))


@IMPORT_TFLITE.row("FILL")
def import_fill(ctx: ImportContext) -> list[Tensor]:
    return [_filled(ctx, integers(ctx, 0, "shape"), operand(ctx, 1))]


@IMPORT_TFLITE.row("ZEROS_LIKE")
def import_zeros_like(ctx: ImportContext) -> list[Tensor]:
    x = operand(ctx, 0)
    return [_filled(ctx, x.shape, _constant(ctx, np.zeros((), x.dtype.numpy)))]


@IMPORT_TFLITE.row("RANGE")
def import_range(ctx: ImportContext) -> list[Tensor]:
    """How many real numbers there are is computed in float32."""
    start, limit, delta = (operand(ctx, index) for index in range(3))
    values = [tensor.number for tensor in (start, limit, delta)]
    if None in values or not values[2]:
        raise ctx.refuse("its bounds are computed, or its step is 0", "constant bounds are supported")
    exact = np.float32 if start.dtype.is_float else np.float64
    first, end, step = (exact(value) for value in values if value is not None)
    with np.errstate(all="ignore"):
        count = max(math.ceil((end - first) / step), 0)
    if count > _LARGEST:
        raise ctx.refuse(f"a range of {count} numbers is too large")
    return [_constant(ctx, (float(first) + float(step) * np.arange(count)).astype(start.dtype.numpy))]


@IMPORT_TFLITE.row("MATRIX_DIAG")
def import_matrix_diag(ctx: ImportContext) -> list[Tensor]:
    """Rows as diagonals of matrices of zeros."""
    x = operand(ctx, 0)
    unit = _eye(ctx, x.shape[-1], x.shape[-1]).astype(x.dtype.numpy)
    return [multiply(ctx, reshaped(ctx, x, (*x.shape, 1)), unit)]


def _eye(ctx: ImportContext, rows: int, columns: int) -> Array:
    """True on the diagonal."""
    if rows * columns > _LARGEST:
        raise ctx.refuse(f"a matrix of {rows} by {columns} is too large", SHAPES)
    return np.eye(rows, columns, dtype=np.bool_)


@IMPORT_TFLITE.row("MATRIX_SET_DIAG")
def import_matrix_set_diag(ctx: ImportContext) -> list[Tensor]:
    """Matrices with rows as their diagonals."""
    x, diagonal = operand(ctx, 0), operand(ctx, 1)
    rows, columns = x.shape[-2:]
    missing = columns - diagonal.shape[-1]  # of a wide matrix: behind the diagonal nothing is chosen
    if missing > 0:
        around = (*((0, 0),) * (len(diagonal.shape) - 1), (0, missing))
        diagonal = ctx.emit("PAD", diagonal, paddings=around)
    row = reshaped(ctx, diagonal, (*diagonal.shape[:-1], 1, diagonal.shape[-1]))
    return [ctx.emit("SELECT_V2", _eye(ctx, rows, columns), row, x)]


_X: dict[str, Shape] = {"x": (2, 3, 5)}
TFLITE_EXAMPLES.add("SHAPE", [TfliteCase("SHAPE", _X, {}, {"out_type": 2}, "ShapeOptions", (), ("int32",))])
TFLITE_EXAMPLES.add("RANK", [TfliteCase("RANK", _X, table="RankOptions", results=("int32",))])
TFLITE_EXAMPLES.add(
    "BROADCAST_ARGS",
    [TfliteCase("BROADCAST_ARGS", {}, {"a": _int32([3, 1, 5]), "b": _int32([4, 1])}, results=("int32",))],
)
TFLITE_EXAMPLES.add(
    "FILL",
    [
        TfliteCase("FILL", {}, {"s": _int32([2, 3]), "v": np.array(1.5, np.float32)}, table="FillOptions"),
        TfliteCase("FILL", {"v": ()}, {"s": _int32([2, 3])}, {}, "FillOptions", ("s", "v")),
    ],
)
TFLITE_EXAMPLES.add("ZEROS_LIKE", [TfliteCase("ZEROS_LIKE", _X, table="ZerosLikeOptions")])
TFLITE_EXAMPLES.add(
    "RANGE",
    [
        TfliteCase(
            "RANGE",
            {},
            {name: np.array(value, kind) for name, value in zip("abc", bounds, strict=True)},
            table="RangeOptions",
            results=(kind,),
        )
        for kind, bounds in (("int32", (9, 1, -3)), ("float32", (9, 1, -3)), ("float32", (0.1, 1.1, 0.1)))
    ],
)
TFLITE_EXAMPLES.add("MATRIX_DIAG", [TfliteCase("MATRIX_DIAG", _X, table="MatrixDiagOptions")])
TFLITE_EXAMPLES.add(
    "MATRIX_SET_DIAG",
    [
        TfliteCase("MATRIX_SET_DIAG", {"x": (2, *sides), "d": (2, min(sides))}, table="MatrixSetDiagOptions")
        for sides in ((4, 4), (3, 5), (5, 3))
    ],
)
