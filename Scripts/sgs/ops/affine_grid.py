"""AffineGrid of ONNX: where an affine map sends the points of a picture or volume, as a product with their matrix."""

from __future__ import annotations

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array
from sgs.ops._import import fully_connected
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, OnnxCase


def _points(size: tuple[int, ...], *, align: bool) -> Array:
    """float32 [P, A + 1]: all points of a grid in row-major order, the last axis first, from -1 to 1, then a 1."""
    lines = []
    for extent in size:
        if align:
            lines.append(np.linspace(-1, 1, extent) if extent > 1 else np.array([-1.0]))
        else:
            lines.append((2 * np.arange(extent) + 1) / extent - 1)
    axes = np.meshgrid(*lines, indexing="ij")
    columns = [axis.reshape(-1) for axis in reversed(axes)]
    return np.stack([*columns, np.ones_like(columns[0])], 1).astype(np.float32)


@IMPORT_ONNX.row("AffineGrid")
def import_affine_grid(ctx: ImportContext) -> list[Tensor]:
    """theta [N, A, A + 1] times the points: [N, A, P], then [N, *size, A]."""
    theta, size = ctx.inputs[0], ctx.constant(1, "size")
    assert theta is not None and size is not None
    batch, axes = theta.shape[:2]
    extents = tuple(int(d) for d in size[2:])
    if len(extents) != axes or int(size[0]) != batch:
        raise ctx.refuse(f"a size of {tuple(size)} for maps of shape {theta.shape}")
    points = _points(extents, align=bool(ctx.attrs.get("align_corners", 0)))
    turned = ctx.emit("TRANSPOSE", fully_connected(ctx, theta, points), perm=(0, 2, 1))
    return [ctx.emit("RESHAPE", turned, shape=(batch, *extents, axes))]


_SIZES = [{"size": np.array(size)} for size in ([2, 3, 5, 7], [1, 2, 3, 5, 7])]
ONNX_EXAMPLES.add(
    "AffineGrid",
    [
        OnnxCase("AffineGrid", {"theta": (2, 2, 3)}, _SIZES[0], opset=20),
        OnnxCase("AffineGrid", {"theta": (1, 3, 4)}, _SIZES[1], {"align_corners": 1}, opset=20),
    ],
)
