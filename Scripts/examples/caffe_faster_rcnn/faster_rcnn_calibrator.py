#!/usr/bin/env python3
"""Calibrate both stages of the two-stage detector at once: two float .sim → two fixed .sim."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(1, str(Path(__file__).resolve().parents[2]))
import rpn
import stages

import calibrator_custom
from calibrator_custom import utils


class Net(calibrator_custom.SIM_Calibrator):
    """Both stages in one forward: each is calibrated on what it is fed there."""

    def __init__(
        self, main_model_path: str, main_input_config: str, second_model_path: str, second_input_config: str
    ) -> None:
        super().__init__()
        self.main_model = calibrator_custom.calibrator(main_model_path, main_input_config)
        self.second_model = calibrator_custom.calibrator(second_model_path, second_input_config)
        self.rpn = rpn.ProposalLayer()

    def forward(self, x: np.ndarray) -> list[np.ndarray]:
        """A picture, uint8 BGR [H, W, 3]; see `stages.forward`."""
        return stages.forward(self.main_model, self.second_model, self.rpn, x, norm=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("-i", "--image", required=True, help="folder of calibration pictures")
    parser.add_argument("-m0", "--model0", required=True, help="float .sim of the first stage")
    parser.add_argument("-m1", "--model1", required=True, help="float .sim of the second stage")
    parser.add_argument("--input_config0", required=True, help="input_config.ini of the first stage")
    parser.add_argument("--input_config1", required=True, help="input_config.ini of the second stage")
    parser.add_argument("-o", "--output", help="folder of the fixed .sim files (default: beside the float ones)")
    parser.add_argument("--quant_level", default="L5", help="L1 to L5 (default: L5)")
    parser.add_argument("--num_process", type=int, default=10, help="pictures at a time (default: 10)")
    parser.add_argument("--soc_version", help="chip to work for")
    options = parser.parse_args()
    try:
        if options.soc_version:
            calibrator_custom.set_soc_version(options.soc_version)
        targets = [utils.get_out_model_name(m, options.output, "Fixed") for m in (options.model0, options.model1)]
        net = Net(options.model0, options.input_config0, options.model1, options.input_config1)
        pictures = (stages.read_picture(path) for path in utils.all_path(options.image))
        net.convert(pictures, fix_model=targets, num_process=options.num_process, quant_level=options.quant_level)
    except ValueError as error:
        parser.exit(2, f"error: {error}\n")
    print("".join(f"Fixed model at: {target}\n" for target in targets), end="")


if __name__ == "__main__":
    main()
