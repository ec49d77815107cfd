#!/usr/bin/env python3
"""Run an offline .img that was compiled for several frames (compiler.py -b), and compare with a frame at a time."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
import calibrator_custom
from calibrator_custom import utils


class Net(calibrator_custom.SIM_Simulator):
    """Frames → every output of each, [frames, ...]."""

    def __init__(self, model_path: str) -> None:
        super().__init__()
        self.model = calibrator_custom.offline_simulator(model_path)
        self.details = self.model.get_input_details()[0]

    def forward(self, *frames: np.ndarray) -> list[np.ndarray]:
        """Both modes take the frames of a run stacked on the highest dimension, and return results so."""
        self.model.set_input(0, np.concatenate(frames))
        self.model.invoke()
        return [self.model.get_output(index) for index in range(len(self.model.get_output_details()))]

    @property
    def sizes(self) -> list[int]:
        """Legal numbers of frames, ascending."""
        batch = self.details["batch"]
        return list(range(1, batch + 1)) if self.details["batch_mode"] == "n_buf" else sorted(batch)


def groups(frames: Sequence[np.ndarray], size: int) -> list[list[np.ndarray]]:
    """The frames in groups of a size, the last one filled up with its last frame."""
    cut = [list(frames[start : start + size]) for start in range(0, len(frames), size)]
    return [group + group[-1:] * (size - len(group)) for group in cut]


def picture_paths(argument: str) -> list[str]:
    """The pictures of a folder, or of a list file with one a line; or the one picture."""
    if Path(argument).is_dir():
        return utils.all_path(argument)
    if Path(argument).suffix != ".txt":
        return [argument]
    lines = Path(argument).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("-i", "--image", required=True, help="folder of pictures, one picture, or .txt list of them")
    parser.add_argument("-m", "--model", required=True, help="the .img, of a model with one input")
    parser.add_argument("-n", "--preprocess", required=True, help="the model's preprocess script")
    parser.add_argument("-b", "--batch", type=int, help="frames of a run (default: the most that the image takes)")
    parser.add_argument("--num_process", type=int, default=10, help="runs at a time (default: 10)")
    parser.add_argument("--soc_version", help="chip that the image is for")
    options = parser.parse_args()
    try:
        if options.soc_version:
            calibrator_custom.set_soc_version(options.soc_version)
        net = Net(options.model)
        size = net.sizes[-1] if options.batch is None else options.batch
        if size not in net.sizes:
            raise ValueError(f"--batch: expected one of {', '.join(map(str, net.sizes))}, got {size}")
        preprocess = utils.image_preprocess_func(options.preprocess)
        pixels = [preprocess(path, norm=False) for path in picture_paths(options.image)]
        frames = [utils.convert_to_input_formats(picture, net.details) for picture in pixels]
        together = net(groups(frames, size), num_process=options.num_process)
        alone = net([[frame] * net.sizes[0] for frame in frames], num_process=options.num_process)
    except (ValueError, OSError) as error:
        parser.exit(2, f"error: {error}\n")
    names = [details["name"] for details in net.model.get_output_details()]
    print(f"{len(frames)} pictures, {net.details['batch_mode']}, {size} frames a run: {len(together)} runs")
    different = 0
    for index, name in enumerate(names):
        stacked = np.concatenate([result[index] for result in together])
        rows = len(stacked) // (size * len(together))  # of one frame
        single = np.concatenate([result[index][:rows] for result in alone])
        count = np.count_nonzero(stacked[: len(single)] != single)
        different += count
        print(f"{name}: {'equal to' if not count else f'{count} of {single.size} values unlike'} one frame at a time")
    if different:
        sys.exit(1)


if __name__ == "__main__":
    main()
