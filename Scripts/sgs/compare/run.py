"""Comparing two models: which is the reference, what was measured as plain values, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from sgs.compare.causes import diagnose
from sgs.compare.isolated import weight_bits
from sgs.compare.measure import Measurement, code_span, jumping, measure
from sgs.compare.sim_stage import SimStage
from sgs.compare.stage import Stage
from sgs.compare.stand_ins import stand_ins
from sgs.data.images import Sample
from sgs.data.preprocess import Preprocessor
from sgs.errors import UserError
from sgs.numeric.types import DType
from sgs.report.compared import ComparedLayer, Comparison

STAGE = "compare"
_DISTANCE = {"Debug": 1, "Float": 2, "Fixed": 3, "Offline": 4}  # from the source network


def compare(a: Stage, b: Stage, preprocessors: Sequence[Preprocessor], samples: Iterable[Sample]) -> Comparison:
    """B beside its reference A (`ordered`) on the samples. Raises UserError where they have no tensor in common."""
    measurement = measure(a, b, preprocessors, samples)
    if not measurement.found:
        reason = f"has no tensor in common with {a.path}"
        raise UserError(reason, stage=STAGE, file=b.path, remedy="compare two stages of one network")
    layers = _layers(measurement)
    outputs = tuple(layer.name for layer in layers if layer.name in b.outputs)
    instead = stand_ins(a, b, measurement.pairs, layers)
    first_bad, causes = diagnose(measurement, layers, (*outputs, *instead))
    return Comparison(
        _told(a), _told(b), measurement.samples, layers, outputs, measurement.unmatched, causes, first_bad, instead
    )


def ordered(a: Stage, b: Stage) -> tuple[Stage, Stage]:
    """The reference, which is the model nearer to the source network, of two of one kind the first; then the other."""
    return (b, a) if distance(b) < distance(a) else (a, b)


def distance(stage: Stage) -> int:
    """How many tools are between the source network and a stage."""
    return _DISTANCE.get(stage.kind, 0)


def _layers(measurement: Measurement) -> tuple[ComparedLayer, ...]:
    b = measurement.b
    weights = weight_bits(b) if isinstance(b, SimStage) else {}
    jumps, layers = jumping(measurement), []
    for name, found in measurement.found.items():
        tensor = b.described[name]
        low, high = code_span(tensor) or (None, None)
        layers.append(
            ComparedLayer(
                name,
                measurement.pairs[name],
                tensor.operator,
                tensor.shape or (),
                32 if tensor.quant is None else DType.of(np.dtype(tensor.dtype)).bits,
                weights.get(name),
                low,
                high,
                found.accumulated.errors(),
                found.isolated.errors() if found.isolated.elements else None,
                name in jumps,
            )
        )
    return tuple(layers)


def _told(stage: Stage) -> str:
    """ "float .sim x_float.sim", "ONNX x.onnx"."""
    kinds = {"Debug": "debug .sim", "Float": "float .sim", "Fixed": "fixed .sim", "Offline": ".img"}
    return f"{kinds.get(stage.kind, stage.kind)} {stage.path.name}"
