#!/usr/bin/env python3
"""Float .sim → fixed .sim by calibrator_custom: the shortest network of a user's own, with one model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
import calibrator_custom
from calibrator_custom import utils


class Net(calibrator_custom.SIM_Calibrator):
    """One model; `forward` says how it is run on one sample."""

    def __init__(self, model_path: str, input_config: str) -> None:
        super().__init__()
        self.model = calibrator_custom.calibrator(model_path, input_config)

    def forward(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Arrays in the order of the model's inputs → its outputs."""
        for index, data in enumerate(inputs):
            self.model.set_input(index, data)
        self.model.invoke()
        return [self.model.get_output(index) for index in range(len(self.model.get_output_details()))]


def sample_paths(argument: str) -> list[list[str]]:
    """The files of every sample: those of a folder, or of a list file with a sample a line, its files separated by
    commas, in the order of the model's inputs."""
    if Path(argument).is_dir():
        return [[path] for path in utils.all_path(argument)]
    lines = Path(argument).read_text(encoding="utf-8").splitlines()
    return [[path.strip() for path in line.split(",")] for line in lines if line.strip()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("-i", "--image", required=True, help="folder of pictures, or list file with a sample a line")
    parser.add_argument("-m", "--model", required=True, help="the float .sim")
    parser.add_argument("--input_config", required=True, help="the model's input_config.ini")
    parser.add_argument(
        "-n", "--preprocess", required=True, help="preprocess script; several, with commas: one an input"
    )
    parser.add_argument("-o", "--output", help="the fixed .sim, or its folder (default: beside the model)")
    parser.add_argument("--quant_level", default="L5", help="L1 to L5 (default: L5)")
    parser.add_argument("--quant_param", help="file of quantisation parameters to follow")
    parser.add_argument("--num_process", type=int, default=10, help="samples at a time (default: 10)")
    parser.add_argument("--soc_version", help="chip to work for")
    options = parser.parse_args()
    try:
        if options.soc_version:
            calibrator_custom.set_soc_version(options.soc_version)
        out_model_path = utils.get_out_model_name(options.model, options.output, "Fixed")
        functions = [utils.image_preprocess_func(name) for name in options.preprocess.split(",")]
        net = Net(options.model, options.input_config)
        img_gen = utils.image_generator(sample_paths(options.image), functions)
        net.convert(
            img_gen,
            fix_model=[out_model_path],
            num_process=options.num_process,
            quant_level=options.quant_level,
            quant_param=options.quant_param,
        )
    except (ValueError, OSError) as error:
        parser.exit(2, f"error: {error}\n")
    print(f"Fixed model at: {out_model_path}")


if __name__ == "__main__":
    main()
