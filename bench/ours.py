"""Calibrate a network with this toolchain, in a process of its own, and leave the fixed .sim.

usage: python bench/ours.py JOB.json

JOB is what bench/calibration.py writes: model, shapes, config, scripts, samples (paths, a list for each sample), level,
processes, out. Prints one line of JSON: seconds of `calibrate` alone, peak MB up to its end, the share of
multiply-accumulates at 16 bit, and the steps of the level.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from memory import PeakMemory

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "Scripts"))

from sgs.config.input_config import read_input_config
from sgs.data.preprocess import Preprocessor
from sgs.errors import UserError
from sgs.ir import Graph
from sgs.numeric.types import DType
from sgs.pipelines import CalibrationOptions, calibrate, convert
from sgs.registry import COST
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


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Run one job; see the module."""
    config = read_input_config(Path(job["config"]))
    try:
        _, graph = convert("onnx", {"model_file": Path(job["model"])}, config, input_shapes=job["shapes"])
        scripts = [Preprocessor(Path(path)) for path in job["scripts"]]
        samples = [tuple(map(Path, sample)) for sample in job["samples"]]
        options = CalibrationOptions(job["level"], processes=job["processes"])
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
        "steps": [asdict(step) for step in result.steps],
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text("utf-8")))))
