"""The two shipped networks that are hard to quantise by construction, all in 8 bit: every level beside float.

usage: python bench/hard_networks.py [NETWORK ...] [--levels L1,L5] [--renderings 4] [--spread]

Prints, per network and level, with no sum of products at 16 bit: top-1 of float and of the fixed network, the share of
pictures with the same answer, and the output SQNR over all of them. Calibration pictures are the shipped ones; scoring
pictures are drawn anew: 264 handwritten digits that training has not seen, each in several renderings, 1056 pictures
by default. --spread prints instead how far the channels of the float network lie apart, sum of products by sum of
products. Needs scikit-learn, which has the digits.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from cases import ALL_8_BIT, Case, Limits
from scores import Score, score
from shipped_networks import RENDERINGS, SHIPPED

from sgs.config.input_config import read_input_config
from sgs.data.preprocess import Preprocessor
from sgs.engine import FixedEngine
from sgs.pipelines import CalibrationOptions, calibrate
from sgs.quant.levels import LEVELS
from sgs.quant.statistics import measure_extrema
from sgs.registry import QUANTISE

NETWORKS = tuple(SHIPPED[name] for name in ("onnx_mobilenet_v3_digits", "onnx_repvgg_digits"))


def measure(case: Case, level: str) -> Score:
    """A level with every sum of products at 8 bit, scored on all pictures of the case."""
    config = read_input_config(case.configs[ALL_8_BIT])
    scripts = [Preprocessor(path) for path in case.scripts]
    samples = [(path,) for path, _ in case.pictures]
    fixed = calibrate(case.graph, config, scripts, samples, CalibrationOptions(level, processes=1)).graph
    outputs = FixedEngine(fixed).map(codes for codes, _ in case.scoring)
    return score(case.truth, outputs, case.classes, detects=False)


def levels(case: Case, chosen: Sequence[str]) -> None:
    """Print a row per level."""
    print(f"\n## {case.network.name}: {len(case.pictures)} pictures calibrate, {len(case.scoring)} score, all 8 bit\n")
    print("| level | top-1 float | top-1 fixed | agrees | output SQNR dB |\n|---|---|---|---|---|", flush=True)
    for level in chosen:
        found = measure(case, level)
        print(
            f"| {level} | {found.float_top1:.2f} | {found.top1:.2f} | {found.agrees:.2f} % | {found.mean_sqnr:.2f} |",
            flush=True,
        )


def spreads(case: Case) -> Iterable[tuple[str, float, float, float]]:
    """How many times its smallest channel the largest is, per sum of products that no input of the network feeds:
    label, width of the operand's channels, absolute weight of its output channels and of its input channels.
    """
    feeds = [dict(zip(case.graph.inputs, map(np.load, sample), strict=True)) for sample in case.samples]
    statistics = measure_extrema(case.graph, feeds)
    for node in case.graph.nodes:
        rule = QUANTISE[node.op]
        if rule.kind != "mac" or node.inputs[0] in case.graph.inputs:
            continue
        seen = statistics.tensors[node.inputs[0] or ""]
        weight = case.graph[node.inputs[rule.weight] or ""].data
        assert weight is not None
        rows = np.moveaxis(np.abs(weight), rule.channel_axis, 0).reshape(weight.shape[rule.channel_axis], -1)
        inputs = np.abs(weight).reshape(-1, weight.shape[-1])  # of a depthwise filter they are its outputs
        widths = np.maximum(seen.high, 0) - np.minimum(seen.low, 0)
        yield node.label, _ratio(widths), _ratio(rows.max(axis=1)), _ratio(inputs.max(axis=0))


def _ratio(sizes: np.ndarray) -> float:
    """Largest over smallest; channels that are 0 do not count."""
    return float(sizes.max() / sizes[sizes > 0].min())


def show_spreads(case: Case) -> None:
    """Print a row per sum of products."""
    print(f"\n## {case.network.name}: largest channel over the smallest\n")
    print("| sum of products | activations | weights by output | weights by input |\n|---|---|---|---|")
    for label, *ratios in spreads(case):
        print(f"| {label} | " + " | ".join(f"{ratio:.1f}" for ratio in ratios) + " |")


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [network.name for network in NETWORKS]
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(names)}; both by default")
    parser.add_argument("--levels", type=lambda text: text.split(","), default=list(LEVELS), metavar="A,B")
    parser.add_argument("--renderings", type=int, default=RENDERINGS, help="of every held-out digit")
    parser.add_argument("--spread", action="store_true")
    options = parser.parse_args(argv)
    if unknown := [name for name in options.networks if name not in names]:
        parser.error(f"{', '.join(unknown)}: not one of {', '.join(names)}")
    if unknown := [level for level in options.levels if level not in LEVELS]:
        parser.error(f"--levels: {', '.join(unknown)}: not one of {', '.join(LEVELS)}")
    return options


def main(argv: Sequence[str]) -> int:
    options = arguments(argv)
    if importlib.util.find_spec("sklearn") is None:
        print("install scikit-learn, which has the digits of the scoring pictures", file=sys.stderr)
        return 2
    for network in NETWORKS:
        if options.networks and network.name not in options.networks:
            continue
        with tempfile.TemporaryDirectory(prefix="hard_networks_") as folder:
            case = Case(replace(network, renderings=options.renderings), Path(folder), Limits())
            if options.spread:
                show_spreads(case)
            else:
                levels(case, options.levels)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
