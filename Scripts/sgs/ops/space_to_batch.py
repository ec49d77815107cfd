"""TFLite's SPACE_TO_BATCH_ND and BATCH_TO_SPACE_ND: blocks of a picture as pictures of their own, and back."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from sgs.ir.graph import Tensor
from sgs.ops._import import reshaped
from sgs.ops._tflite import SHAPES, integers, operand
from sgs.registry import IMPORT_TFLITE, TFLITE_EXAMPLES, ImportContext, Shape, TfliteCase

Pairs = Sequence[tuple[int, int]]


def _blocks(ctx: ImportContext, x: Tensor, what: str) -> tuple[list[int], Pairs]:
    """(sides of a block, what is before and behind along each of its axes)."""
    block, flat = integers(ctx, 1, "block"), integers(ctx, 2, what)
    if len(flat) != 2 * len(block) or len(block) >= len(x.shape) or min([*block, 1]) < 1 or min([*flat, 0]) < 0:
        raise ctx.refuse(f"a block of {block} and {what} of {flat} do not fit shape {x.shape}", SHAPES)
    return block, list(zip(flat[::2], flat[1::2], strict=True))


@IMPORT_TFLITE.row("SPACE_TO_BATCH_ND")
def import_space_to_batch(ctx: ImportContext) -> list[Tensor]:
    """[N, S.., rest] → [b · N, S / b.., rest], b over all places within a block."""
    x = operand(ctx, 0)
    block, paddings = _blocks(ctx, x, "paddings")
    count = len(block)
    if any(before or behind for before, behind in paddings):
        around = ((0, 0), *paddings, *((0, 0),) * (len(x.shape) - 1 - count))
        x = ctx.emit("PAD", x, paddings=around)
    space, rest = x.shape[1 : 1 + count], x.shape[1 + count :]
    if any(extent % side for extent, side in zip(space, block, strict=True)):
        raise ctx.refuse(f"{space} is no whole number of blocks of {block}", SHAPES)
    parted = [part for extent, side in zip(space, block, strict=True) for part in (extent // side, side)]
    y = reshaped(ctx, x, (x.shape[0], *parted, *rest))
    inner, outer = range(2, 2 + 2 * count, 2), range(1, 1 + 2 * count, 2)
    y = ctx.emit("TRANSPOSE", y, perm=(*inner, 0, *outer, *range(1 + 2 * count, len(y.shape))))
    whole = tuple(extent // side for extent, side in zip(space, block, strict=True))
    return [reshaped(ctx, y, (prod(block) * x.shape[0], *whole, *rest))]


@IMPORT_TFLITE.row("BATCH_TO_SPACE_ND")
def import_batch_to_space(ctx: ImportContext) -> list[Tensor]:
    """[b · N, S.., rest] → [N, S · b.., rest], less what is cropped."""
    x = operand(ctx, 0)
    block, crops = _blocks(ctx, x, "crops")
    count = len(block)
    batch, space, rest = x.shape[0] // prod(block), x.shape[1 : 1 + count], x.shape[1 + count :]
    y = reshaped(ctx, x, (*block, batch, *space, *rest))
    pairs = [axis for i in range(count) for axis in (count + 1 + i, i)]
    y = ctx.emit("TRANSPOSE", y, perm=(count, *pairs, *range(2 * count + 1, len(y.shape))))
    whole = tuple(extent * side for extent, side in zip(space, block, strict=True))
    y = reshaped(ctx, y, (batch, *whole, *rest))
    if not any(before or behind for before, behind in crops):
        return [y]
    begin = (0, *(before for before, _ in crops), *(0,) * len(rest))
    end = (batch, *(extent - behind for extent, (_, behind) in zip(whole, crops, strict=True)), *rest)
    return [ctx.emit("STRIDED_SLICE", y, begin=begin, end=end, strides=(1,) * len(begin))]


def _case(op: str, shape: Shape, block: Any, around: Any) -> TfliteCase:
    table = {"SPACE_TO_BATCH_ND": "SpaceToBatchNDOptions"}.get(op, "BatchToSpaceNDOptions")
    return TfliteCase(op, {"x": shape}, {"b": np.array(block, np.int32), "a": np.array(around, np.int32)}, table=table)


TFLITE_EXAMPLES.add(
    "SPACE_TO_BATCH_ND",
    [
        _case("SPACE_TO_BATCH_ND", (2, 5, 7, 3), [2, 3], [[1, 0], [0, 2]]),
        _case("SPACE_TO_BATCH_ND", (1, 6, 5), [3], [[0, 0]]),
    ],
)
TFLITE_EXAMPLES.add(
    "BATCH_TO_SPACE_ND",
    [
        _case("BATCH_TO_SPACE_ND", (12, 3, 2, 3), [2, 3], [[1, 0], [0, 2]]),
        _case("BATCH_TO_SPACE_ND", (3, 6, 5), [3], [[0, 0]]),
    ],
)
