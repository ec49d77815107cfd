"""What the calibrator and the simulator of the two-stage detector share: the way of a picture through both stages."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
import rpn

from calibrator_custom import utils

Details = dict[str, Any]
MEAN = np.array([102.9801, 115.9465, 122.7717], np.float32)
"""Of B, G and R: the mean of the first stage's input_config.ini, whose std_value is 1."""

VOTING = 0.5


class Detection(NamedTuple):
    """One object in a picture."""

    label: int
    """Class, from 1 on: 0 is the background."""
    score: float
    """0..1."""
    box: tuple[float, float, float, float]
    """Corners (x1, y1, x2, y2) in pixels of the picture."""


def read_picture(path: str) -> np.ndarray:
    """uint8 BGR [H, W, 3]. Raises ValueError for a file that is no picture."""
    picture = cv2.imread(path, cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f"{path}: expected a picture, got none that OpenCV can read")
    return picture


def fill_inputImg2main(picture: np.ndarray, details: Details, norm: bool) -> tuple[np.ndarray, float]:
    """The first stage's input [1, H, W, 3] and how many of its pixels are one of the picture's.

    The picture keeps its proportions; what it leaves of the input, right or below, holds the mean. Float models read
    pixels less the mean (norm), fixed and offline models the pixels in their `input_formats`.
    """
    _, height, width, _ = details.get("picture_shape", details["shape"])  # of the pixels; shape is that of the bytes
    scale = min(height / picture.shape[0], width / picture.shape[1])
    if scale != 1:
        size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
    filled = np.empty((1, height, width, 3), np.uint8)
    filled[:] = np.rint(MEAN)
    filled[0, : picture.shape[0], : picture.shape[1]] = picture
    return (filled - MEAN if norm else utils.convert_to_input_formats(filled, details)), scale


def hand_over(values: np.ndarray, source: Details, target: Details) -> np.ndarray:
    """An output of one model as another one's input reads it.

    Codes (dequantizations=FALSE to RAWDATA_S16_NHWC) pass as they are where both models count in the same steps;
    otherwise they are counted anew.
    """
    given, wanted = source.get("quantization"), target.get("quantization")
    if given == wanted:
        return values
    if given is not None:
        values = (values.astype(np.float32) - given[1]) * np.float32(given[0])
    if wanted is not None:
        limits = np.iinfo(target["dtype"])
        values = np.clip(np.rint(values / np.float32(wanted[0])) + wanted[1], limits.min, limits.max)
    return values.astype(target["dtype"])


def run_model(model: Any, *inputs: np.ndarray) -> list[np.ndarray]:
    """All outputs of one run."""
    for index, values in enumerate(inputs):
        model.set_input(index, values)
    model.invoke()
    return [model.get_output(index) for index in range(len(model.get_output_details()))]


def forward(
    main_model: Any, second_model: Any, proposals: rpn.ProposalLayer, x: np.ndarray, norm: bool
) -> list[np.ndarray]:
    """Both stages on a picture, uint8 BGR [H, W, 3].

    Returns:
        Regions [N, 4] in pixels of the picture, class probabilities [N, K + 1] and box codes [N, 4 (K + 1)].
    """
    source, target = main_model.get_output_details(), second_model.get_input_details()
    input_data, im_scale = fill_inputImg2main(x, main_model.get_input_details()[0], norm)
    first = run_model(main_model, input_data)
    real = [hand_over(values, details, {"dtype": np.float32}) for values, details in zip(first, source, strict=True)]
    im_info = np.array([[x.shape[0], x.shape[1], im_scale]])
    rois = proposals.forward([real[0], real[1], im_info])
    conv5_3 = hand_over(first[2], source[2], target[0])
    second = run_model(second_model, conv5_3, hand_over(rois, {}, target[1]))
    details = second_model.get_output_details()
    cls_prob, bbox_pred = (hand_over(v, d, {"dtype": np.float32}) for v, d in zip(second, details, strict=True))
    return [rois[:, 1:] / im_scale, cls_prob, bbox_pred]


def detections(
    results: list[np.ndarray], height: int, width: int, threshold: float = 0.5, overlap: float = 0.4
) -> list[Detection]:
    """What `forward` found in a picture of this size with scores from `threshold` on, the best first.

    Of two boxes of a class that overlap by more than `overlap` the better one stays, and moves to the mean of all boxes
    of its class that overlap it by more than VOTING, weighted with their scores (box voting, Gidaris and Komodakis
    2015): where it lies then hardly depends on which of two equally good regions won.
    """
    rois, cls_prob, bbox_pred = results
    found = []
    for label in range(1, cls_prob.shape[1]):
        scores = cls_prob[:, label]
        boxes = rpn.clip_boxes(rpn.decode_boxes(bbox_pred[:, 4 * label : 4 * label + 4], rois), height, width)
        chosen = np.flatnonzero(scores >= threshold)
        for index in chosen[rpn.suppress(boxes[chosen], scores[chosen], overlap, len(chosen))]:
            weights = scores * (rpn.iou_matrix(boxes[index : index + 1], boxes)[0] > VOTING)
            x1, y1, x2, y2 = (weights @ boxes / weights.sum()).tolist()
            found.append(Detection(label, float(scores[index]), (x1, y1, x2, y2)))
    return sorted(found, key=lambda detection: -detection.score)
