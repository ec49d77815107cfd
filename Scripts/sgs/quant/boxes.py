"""How many of the float network's boxes a fixed network finds again, for networks with a detection operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sgs.engine import FixedEngine, FloatEngine
from sgs.numeric.quantise import Array
from sgs.ops.detection_nms import OP
from sgs.quant.boundary import codes_of_inputs, real_outputs
from sgs.quant.levels import MAX_INT16_MACS, Calibration, Step
from sgs.quant.plan import QuantPlan

ENOUGH = 0.99  # of the boxes
ROUNDS = ((MAX_INT16_MACS, 1.0), (0.5, 0.1), (1.0, 0.01))  # share of work in 16 bit, and of the threshold
SCORE = 0.3  # from which a box counts, and is drawn
OVERLAP, NEAR = 0.9, 0.1  # least intersection over union, and most difference of scores, of boxes that are the same


@dataclass(frozen=True)
class Boxes:
    """`kept` of the float network's `boxes`: the fixed one has a box of the same class and much the same place and
    score."""

    kept: int
    boxes: int

    @property
    def share(self) -> float:
        """1 where there are none."""
        return self.kept / self.boxes if self.boxes else 1.0

    def __str__(self) -> str:
        if not self.boxes:
            return f"float has no boxes of score {SCORE} or more that could be kept"
        return f"{self.kept} of float's {self.boxes} boxes kept"


def run_for_boxes(calibration: Calibration, level: str) -> tuple[QuantPlan, Boxes | None]:
    """The plan of a level that promotes, and what it keeps: with as much more in 16 bit than usual as the boxes need,
    tried in ROUNDS; without more where the network has no boxes, or its bits are forced. The steps are those of all
    rounds."""
    forced = calibration.conv.input_format is not None
    if forced or not detections_of(calibration):
        plan = calibration.run(level)
        return plan, boxes_kept(calibration, plan)
    best: tuple[float, float, QuantPlan, Boxes] | None = None
    steps, threshold = list[Step](), calibration.threshold
    for budget, share in ROUNDS:
        calibration.max_int16_macs, calibration.threshold = budget, threshold * share
        plan = calibration.run(level)
        found = boxes_kept(calibration, plan)
        assert found is not None
        calibration.note(f"{found}, at most {budget:.0%} in 16 bit", plan)
        steps += calibration.steps
        if best is None or found.share > best[3].share:
            best = budget, calibration.threshold, plan, found
        if found.share >= ENOUGH:
            break
    assert best is not None
    calibration.max_int16_macs, calibration.threshold, plan, found = best
    calibration.steps = steps
    return plan, found


def detections_of(calibration: Calibration) -> list[tuple[str, ...]]:
    """Names of the boxes, classes, scores and their number that each detection operator of the network gives."""
    return [tuple(node.outputs[:4]) for node in calibration.prepared.nodes if node.op == OP]


def boxes_kept(calibration: Calibration, plan: QuantPlan) -> Boxes | None:
    """What a plan keeps on all samples; None where the network has no boxes."""
    detections = detections_of(calibration)
    if not detections:
        return None
    names = [name for four in detections for name in four]
    core = calibration.fixed(plan)
    real = FloatEngine(calibration.float_graph, threads=calibration.threads, extra=names)
    fixed = FixedEngine(core, threads=calibration.threads, extra=names)
    kept = boxes = 0
    for sample in calibration.samples:
        truth = real.run(sample)
        found = real_outputs(core, fixed.run(codes_of_inputs(core, sample)), names)
        for here in (same_boxes(truth, found, four) for four in detections):
            kept, boxes = kept + here.kept, boxes + here.boxes
    return Boxes(kept, boxes)


def same_boxes(truth: Mapping[str, Array], found: Mapping[str, Array], names: Sequence[str]) -> Boxes:
    """What one sample's detections, by `names` as one of `detections_of`, keep of the true ones that count."""
    same = _same(_found(truth, names, SCORE), _found(found, names))
    return Boxes(int(same.any(axis=1).sum()), len(same))


def _found(values: Mapping[str, Array], names: Sequence[str], least: float = 0.0) -> tuple[Array, Array, Array]:
    """Corners [n, 4], classes [n] and scores [n] of the boxes with such a score or a better one."""
    corners, classes, scores, count = (np.asarray(values[name], np.float64)[0] for name in names)
    chosen = (np.arange(len(scores)) < np.ravel(count)[0]) & (scores >= least)
    return corners[chosen], classes[chosen], scores[chosen]


def _same(expected: tuple[Array, Array, Array], found: tuple[Array, Array, Array]) -> Array:
    """Which boxes [n] are the same as which others [m], bool [n, m]."""
    (corners, classes, scores), (others, their_classes, their_scores) = expected, found
    alike = (classes[:, None] == their_classes[None]) & (np.abs(scores[:, None] - their_scores[None]) <= NEAR)
    return np.asarray(alike & (overlaps(corners, others) >= OVERLAP))


def overlaps(a: Array, b: Array) -> Array:
    """Intersection over union [n, m] of boxes [n, 4] and [m, 4], each by two opposite corners, the lower first."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    inside = np.clip(high - low, 0, None).prod(axis=-1)
    area_a, area_b = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=-1) for boxes in (a, b))
    return np.asarray(inside / np.maximum(area_a[:, None] + area_b[None] - inside, 1e-30))
