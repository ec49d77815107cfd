"""Why layer types have no meaning here, for messages."""

from __future__ import annotations

from sgs.config.nearest import did_you_mean
from sgs.frontends.caffe.context import CAFFE

_DEPLOY = "give the deploy prototxt, in which an input stands in its place"
_TRAINING = "remove it, or give the deploy prototxt"
_DATA = ("reads its data itself", _DEPLOY)
_LOSS = ("is for training", _TRAINING)
_REASONS: dict[tuple[str, ...], tuple[str, str]] = {
    (
        *("AnnotatedData", "CompactData", "Data", "DenseImageData", "DummyData", "HDF5Data", "ImageData", "MemoryData"),
        *("VideoData", "WindowData"),
    ): _DATA,
    (
        *("Accuracy", "CenterLoss", "ContrastiveLoss", "DetectionEvaluate", "EuclideanLoss", "HDF5Output"),
        *("HingeLoss", "InfogainLoss", "MultiBoxLoss", "MultinomialLogisticLoss", "SigmoidCrossEntropyLoss"),
        *("SmoothL1Loss",),
    ): _LOSS,
    ("Python",): ("is Python code", "cut the network before it with --outputs, and run it on the outputs"),
}
_BY_TYPE = {kind: told for kinds, told in _REASONS.items() for kind in kinds}


def reason_of(kind: str) -> tuple[str, str]:
    """(reason, remedy) of the refusal of a layer type without a row."""
    if kind in _BY_TYPE:
        why, remedy = _BY_TYPE[kind]
        return f"layer type {kind} {why}", remedy
    guess = did_you_mean(kind, list(CAFFE))
    return f"layer type {kind} is not supported", f"{guess}; docs/FRONTENDS.md lists the layer types that there are"
