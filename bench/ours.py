"""Calibrate a network with this toolchain, in a process of its own, and leave the fixed .sim.

usage: python bench/ours.py JOB.json

JOB is what bench/cases.py writes: platform, files, shapes, config, scripts, samples (paths, a list for each sample),
level, processes, out; of a mode of torch_calibrator also mode and quant_config. Prints one line of JSON: seconds of
`calibrate` alone, peak MB up to its end, the share of multiply-accumulates at 16 bit, bytes and mean precision of the
weights, and the steps.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from memory import PeakMemory

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "Scripts"))

from sgs.config.input_config import read_input_config
from sgs.config.quant_config import mode_named, read_quant_config
from sgs.data.preprocess import Preprocessor
from sgs.errors import UserError
from sgs.img.image import packed_bytes
from sgs.ir import Graph, Tensor
from sgs.modes import ModeOptions
from sgs.numeric.types import DType
from sgs.pipelines import CalibrationOptions, calibrate, convert
from sgs.registry import COST, QUANTISE
from sgs.sim import write_sim


def int16_share(graph: Graph) -> float:
    """Share of the multiply-accumulates of a fixed graph whose activations are INT16."""
    macs = {8: 0, 16: 0}
    for node in graph.nodes:
        operands = graph.operands(node)
        count = COST[node.op](node, operands, graph.results(node)).macs
        if count:
            assert operands[0] is not None
            macs[16 if operands[0].dtype is DType.INT16 else 8] += count
    return macs[16] / max(1, sum(macs.values()))


def weight_facts(graph: Graph) -> dict[str, float]:
    """`weight_bytes` of the sums of products of a fixed graph, as stored, and `mp_rate`, their bits as a share of what
    16 a weight would be."""
    weights = sum_weights(graph)
    elements, bits = sum(weight.elements for weight in weights), sum(w.elements * w.dtype.bits for w in weights)
    size = sum(packed_bytes(weight.shape, weight.dtype) for weight in weights)
    return {"weight_bytes": size, "mp_rate": bits / (16 * max(1, elements))}


def sum_weights(graph: Graph) -> list[Tensor]:
    """The weights of all sums of products, each once."""
    sums = [node for node in graph.nodes if node.op in QUANTISE and QUANTISE[node.op].kind == "mac"]
    names = dict.fromkeys(node.inputs[QUANTISE[node.op].weight] or "" for node in sums)
    return [graph[name] for name in names]


def calibration_options(job: dict[str, Any]) -> CalibrationOptions:
    """The options that a job stands for. A mode keeps what it has so far beside its output, and starts from nothing."""
    if "mode" not in job:
        return CalibrationOptions(job["level"], processes=job["processes"])
    folder = Path(job["out"]).with_suffix(".state")
    shutil.rmtree(folder, ignore_errors=True)
    mode = ModeOptions(mode_named(job["mode"]), read_quant_config(Path(job["quant_config"])), folder=folder)
    return CalibrationOptions(processes=job["processes"], mode=mode)


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Run one job; see the module."""
    config = read_input_config(Path(job["config"]))
    try:
        files = {option: Path(path) for option, path in job["files"].items()}
        _, graph = convert(job["platform"], files, config, input_shapes=job["shapes"])
        scripts = [Preprocessor(Path(path)) for path in job["scripts"]]
        samples = [tuple(map(Path, sample)) for sample in job["samples"]]
        options = calibration_options(job)
        with PeakMemory() as peak:
            start = time.perf_counter()
            result = calibrate(graph, config, scripts, samples, options)
            seconds = time.perf_counter() - start
    except UserError as error:
        return {"error": f"refuses: {error}"}
    write_sim(result.graph, job["out"], stage="fixed")
    return {
        "seconds": seconds,
        "peak_mb": peak.tree,
        "own_mb": peak.own,
        "int16_share": int16_share(result.graph),
        **weight_facts(result.graph),
        "steps": [asdict(step) for step in result.steps],
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text("utf-8")))))
