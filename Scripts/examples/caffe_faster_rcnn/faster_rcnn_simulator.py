#!/usr/bin/env python3
"""Run the two-stage detector, float, fixed or offline, and print what it finds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(1, str(Path(__file__).resolve().parents[2]))
import rpn
import stages

import calibrator_custom
from calibrator_custom import utils

ENLARGED = 4  # drawn pixels for one of the picture


class Net(calibrator_custom.SIM_Simulator):
    """Both stages in one forward."""

    def __init__(self, main_model_path: str, second_model_path: str, phase: str) -> None:
        super().__init__()
        if phase == "Float":
            self.main_model = calibrator_custom.float_simulator(main_model_path)
            self.second_model = calibrator_custom.float_simulator(second_model_path)
            self.norm = True
        elif phase == "Fixed":
            self.main_model = calibrator_custom.fixed_simulator(main_model_path)
            self.second_model = calibrator_custom.fixed_simulator(second_model_path)
            self.norm = False
        else:
            self.main_model = calibrator_custom.offline_simulator(main_model_path)
            self.second_model = calibrator_custom.offline_simulator(second_model_path)
            self.norm = False
        self.rpn = rpn.ProposalLayer()

    def forward(self, x: np.ndarray) -> list[np.ndarray]:
        """A picture, uint8 BGR [H, W, 3]; see `stages.forward`."""
        return stages.forward(self.main_model, self.second_model, self.rpn, x, norm=self.norm)


def draw(picture: np.ndarray, found: list[stages.Detection], labels: list[str], path: str) -> None:
    """Write the picture with boxes, enlarged."""
    canvas = cv2.resize(picture, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_NEAREST)
    for detection in found:
        x1, y1, x2, y2 = (round(value * ENLARGED) for value in detection.box)
        text = f"{name_of(detection.label, labels)} {detection.score:.2f}"
        cv2.rectangle(canvas, (x1, y1), (x2, y2), (0, 255, 0), 2)
        cv2.putText(canvas, text, (x1, max(y1 - 4, 12)), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 255, 0), 1, cv2.LINE_AA)
    if not cv2.imwrite(path, canvas):
        raise ValueError(f"{path}: expected a file that can be written")


def name_of(label: int, labels: list[str]) -> str:
    """A class's name where there is one, else its number."""
    return labels[label - 1] if label <= len(labels) else str(label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("-i", "--image", required=True, help="picture, or folder of pictures")
    parser.add_argument("-m0", "--model0", required=True, help="model of the first stage")
    parser.add_argument("-m1", "--model1", required=True, help="model of the second stage")
    parser.add_argument("-t", "--type", required=True, choices=("Float", "Fixed", "Offline"), help="kind of the models")
    parser.add_argument("-l", "--label", help="text file with the name of a class a line")
    parser.add_argument("--threshold", type=float, default=0.5, help="least score (default: 0.5)")
    parser.add_argument("--draw_result", metavar="DIR", help="folder for pictures with boxes")
    parser.add_argument("--num_process", type=int, default=10, help="pictures at a time (default: 10)")
    parser.add_argument("--soc_version", help="chip that offline models are for")
    options = parser.parse_args()
    try:
        if options.soc_version:
            calibrator_custom.set_soc_version(options.soc_version)
        labels = Path(options.label).read_text(encoding="utf-8").split("\n") if options.label else []
        paths = utils.all_path(options.image) if Path(options.image).is_dir() else [options.image]
        if options.draw_result:
            Path(options.draw_result).mkdir(exist_ok=True)
        net = Net(options.model0, options.model1, options.type)
        results = net((stages.read_picture(path) for path in paths), num_process=options.num_process)
        for path, result in zip(paths, results, strict=True):
            picture = stages.read_picture(path)
            found = stages.detections(result, *picture.shape[:2], options.threshold)
            for detection in found:
                x1, y1, x2, y2 = detection.box
                place = f"[{x1:.1f}, {y1:.1f}, {x2 - x1:.1f}, {y2 - y1:.1f}]"
                print(f"{path}: {name_of(detection.label, labels)} {detection.score:.4f} {place}")
            if options.draw_result:
                draw(picture, found, labels, str(Path(options.draw_result) / f"{Path(path).stem}.png"))
    except (ValueError, OSError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
