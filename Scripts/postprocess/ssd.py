"""SSD (Liu et al.: SSD, single shot multibox detector, 2016): locations relative to priors, and scores of classes.

x = tx · variance · prior width + prior x, width = exp(tw · variance) · prior width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array
from sgs.postprocess.network import Network

VARIANCES = (0.1, 0.1, 0.2, 0.2)


@dataclass(frozen=True)
class FeatureMap:
    """The priors of a feature map, as Caffe's PriorBox says it, in pixels of the network's picture.

    Of every cell, for each of `min_sizes` in turn: the square of it; the square of √(min · max), where there are
    `max_sizes`; for each of `ratios` r the prior of width min · √r and height min / √r, and with `flip` that of 1 / r.
    `step`: pixels from cell to cell (y, x), where they are not the picture's by the number of cells.
    """

    rows: int
    columns: int
    min_sizes: Sequence[float]
    max_sizes: Sequence[float] = ()
    ratios: Sequence[float] = ()
    flip: bool = True
    step: tuple[float, float] | None = None
    offset: float = 0.5

    def sides(self) -> list[tuple[float, float]]:
        """(height, width) of the priors of a cell."""
        if self.max_sizes and len(self.max_sizes) != len(self.min_sizes):
            raise ValueError(f"{len(self.min_sizes)} min_sizes and {len(self.max_sizes)} max_sizes")
        found = []
        for place, small in enumerate(self.min_sizes):
            found.append((small, small))
            if self.max_sizes:
                found.append((math.sqrt(small * self.max_sizes[place]),) * 2)
            for ratio in self.ratios:
                root = math.sqrt(ratio)
                found.append((small / root, small * root))
                found += [(small * root, small / root)] * self.flip
        return found


SSD300 = tuple(  # the authors' network for 300 x 300 pixels, trained on COCO's classes or VOC's: 8732 priors
    FeatureMap(cells, cells, (small,), (large,), ratios, step=(step, step))
    for cells, step, small, large, ratios in (
        (38, 8, 30, 60, (2,)),
        (19, 16, 60, 111, (2, 3)),
        (10, 32, 111, 162, (2, 3)),
        (5, 64, 162, 213, (2, 3)),
        (3, 100, 213, 264, (2,)),
        (1, 300, 264, 315, (2,)),
    )
)


def priors(size: tuple[int, int], maps: Sequence[FeatureMap], *, clip: bool = False) -> Array:
    """[N, 4] (y, x, height, width) of the priors as shares of a picture of `size` (height, width), by map, y, x and
    prior of the cell; with `clip` what is outside of the picture is cut off."""
    found = []
    for one in maps:
        step = one.step or (size[0] / one.rows, size[1] / one.columns)
        cells = np.indices((one.rows, one.columns)).reshape(2, -1, 1).transpose(1, 2, 0)
        centres, sides = (cells + one.offset) * step, np.array(one.sides())
        spread = np.broadcast_to(sides, (len(cells), *sides.shape))
        found.append(np.concatenate([np.broadcast_to(centres, spread.shape), spread], axis=2).reshape(-1, 4))
    boxes = np.concatenate(found) / (*size, *size)
    if clip:
        low, high = (np.clip(boxes[:, :2] + sign * boxes[:, 2:] / 2, 0, 1) for sign in (-1, 1))
        boxes = np.concatenate([(low + high) / 2, high - low], axis=1)
    return boxes


def detections(
    network: Network,
    locations: str | Tensor,
    scores: str | Tensor,
    boxes: Array,
    *,
    variances: Sequence[float] = VARIANCES,
    order: Literal["xywh", "yxhw"] = "xywh",
    activation: Literal["softmax", "sigmoid"] | None = None,
    background: bool = True,
    **nms: Any,
) -> list[Tensor]:
    """Boxes, classes, scores and their number.

    Args:
        locations: 4 numbers for each prior: an output, or a tensor made of some.
        scores: a number for each prior and class.
        boxes: the priors [N, 4] (y, x, height, width), as `priors` gives them.
        variances: that the locations are multiplied by, in their order.
        order: of the locations: Caffe's and PyTorch's are xywh, those of TensorFlow's object detection yxhw.
        activation: what makes scores of the numbers; None where the network has done it.
        background: the first class is none, and the one behind it becomes class 0.
        nms: as in `Network.nms`.

    Raises:
        ValueError: the outputs do not go with the priors.
    """
    count = len(boxes)
    moved, rated = (network.output(x) if isinstance(x, str) else x for x in (locations, scores))
    first = int(background)
    if moved.elements != 4 * count or rated.elements % count or rated.elements <= first * count:
        told = ", ".join(f"'{x.name}' {list(x.shape)}" for x in (moved, rated))
        raise ValueError(f"{told} are not 4 locations and the scores of classes for each of {count} priors")
    offsets = network.mul(network.reshape(moved, 1, count, 4), np.asarray(variances, np.float32))
    rows = network.reshape(rated, 1, count, -1)
    if activation == "softmax":
        rows = network.softmax(rows)
    best, classes = network.unpack(
        rows,
        box=-1,
        confidence=-1,
        first_class=first,
        classes=rows.shape[2] - first,
        logistic=activation == "sigmoid",
    )
    scales = np.tile(boxes[:, 2:], 2)
    corners = network.decode_boxes(offsets, boxes[:, :2], scales, order=order, centre="linear", extent="exp")
    return network.nms(corners, best, classes, **nms)


def postprocess(network: Network) -> list[Tensor]:
    """SSD300, whose two outputs are its locations, and its scores behind the softmax, background first."""
    if network.size != (300, 300) or len(network.outputs) != 2:
        raise ValueError(
            f"this is for SSD300, with two outputs; the network reads {network.size} and has "
            f"{len(network.outputs)}: a script that calls ssd.detections says what its priors are"
        )
    locations, scores = sorted(network.outputs.values(), key=lambda x: x.elements != 4 * 8732)
    return detections(network, locations, scores, priors(network.size, SSD300))
