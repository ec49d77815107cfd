"""Why layer types have no meaning here, for messages."""

from __future__ import annotations

from collections.abc import Sequence

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
}
# layers of detectors and the like: what they read is what the network is for here
_BEYOND = {
    "Python": "is Python code",
    **dict.fromkeys(
        ("BatchReindex", "Filter"), "chooses samples of a batch by what the network computes, so that no shape is known"
    ),
    **dict.fromkeys(("DetectionOutput", "Proposal", "YoloDetectionOutput"), "chooses boxes, which is not done here"),
    **dict.fromkeys(("PSROIPooling", "ROIAlign"), "has no meaning here"),
}
_BY_TYPE = {kind: told for kinds, told in _REASONS.items() for kind in kinds}


def reason_of(kind: str, computed: Sequence[str]) -> tuple[str, str]:
    """(reason, remedy) of the refusal of a layer type without a row; `computed`: its bottoms that are no constants."""
    if kind in _BEYOND:
        names = ",".join(dict.fromkeys(computed))
        remedy = f"end the network in front of it: --outputs {names}, or name only these as outputs in input_config.ini"
        return f"layer type {kind} {_BEYOND[kind]}", remedy if names else "remove it"
    if kind in _BY_TYPE:
        why, remedy = _BY_TYPE[kind]
        return f"layer type {kind} {why}", remedy
    guess = did_you_mean(kind, list(CAFFE))
    return f"layer type {kind} is not supported", f"{guess}; docs/FRONTENDS.md lists the layer types that there are"
