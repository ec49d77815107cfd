"""The whole product on one page: convert, calibrate, compile. Steps take and give values; `cli` handles files."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from sgs.compile import compile_graph
from sgs.config.chips import Chip
from sgs.config.input_config import (
    InputConfig,
    check_against_names,
    read_input_config,
    refuse_unsupported_formats,
)
from sgs.data.feed import Fed, fixed_inputs, float_inputs, normalisation_mismatch
from sgs.data.images import Sample
from sgs.data.preprocess import Preprocessor
from sgs.data.shards import process_count
from sgs.errors import UserError, raise_all
from sgs.frontends.onnx_import import Layouts, import_onnx
from sgs.img import Image
from sgs.ir import Graph
from sgs.passes.pipeline import optimise
from sgs.quant.boundary import attach
from sgs.quant.gather import FloatFeeds, Wrap, gather, plain
from sgs.quant.levels import CORRECTION_SAMPLES, LEVELS, Calibration, Step, searched_tensors
from sgs.quant.plan import QuantPlan
from sgs.quant.prepare import prepare
from sgs.quant.statistics import Statistics

_log = logging.getLogger(__name__)


# -- convert -----------------------------------------------------------------------------------------------------------
def convert_onnx(
    model: Path,
    config: InputConfig,
    *,
    input_shapes: Sequence[Sequence[int]] | None = None,
    skip_simplify: bool = False,
) -> tuple[Graph, Graph]:
    """(untouched import, optimised float graph) of an ONNX file, inputs and outputs in the order of the ini.

    Raises UserError for a model or an ini that cannot be used, or for names of the ini that the model does not have.
    """
    refuse_unsupported_formats(config)
    imported = import_onnx(
        model,
        input_shapes=input_shapes,
        input_names=[spec.name for spec in config.inputs],
        output_names=[spec.name for spec in config.outputs],
        input_layouts=cast(Layouts, {spec.name: spec.layout for spec in config.inputs}),
        output_layouts=cast(Layouts, {spec.name: spec.layout for spec in config.outputs}),
        skip_simplify=skip_simplify,
    )
    check_names(imported, config)
    imported.metadata["config"] = config.text
    graph = imported.copy()
    optimise(graph)
    return imported, graph


def check_names(graph: Graph, config: InputConfig) -> None:
    """Raise UserError where the ini's names, counts or channels do not fit the graph."""
    inputs, outputs = ({name: graph[name].shape for name in names} for names in (graph.inputs, graph.outputs))
    check_against_names(config, inputs, outputs)


def check_integer_inputs(graph: Graph, config: InputConfig) -> None:
    """Raise UserError where the network reads integers of its own (numbers of words ...) and the ini says otherwise."""
    raise_all(
        [
            UserError(
                f"the network reads {graph[spec.name].dtype.name.lower()} here",
                stage="calibrate",
                file=config.path,
                node=f"[INPUT_CONFIG] input_formats, '{spec.name}'",
                remedy="set training_input_formats and input_formats to RAWDATA_S16_NHWC",
            )
            for spec in config.inputs
            if not graph[spec.name].dtype.is_float and spec.input_format != "RAWDATA_S16_NHWC"
        ],
        stage="calibrate",
    )


# -- calibrate ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class CalibrationOptions:
    """`level` of LEVELS; `threshold` and `max_int16_macs` for promotion to 16 bit (see `quant.levels.Calibration`);
    `processes` at most; with `memory_saving` half the samples are kept for judging.
    """

    level: str = "L5"
    threshold: float = 0.002
    max_int16_macs: float = 0.25
    processes: int = 10
    memory_saving: bool = False


@dataclass(frozen=True)
class Calibrated:
    """A fixed graph with its boundary, the plan behind it, and what each step of the level gained."""

    graph: Graph
    plan: QuantPlan
    statistics: Statistics
    steps: tuple[Step, ...]


def calibrate(
    float_graph: Graph,
    config: InputConfig,
    preprocessors: Sequence[Preprocessor],
    samples: Sequence[Sample],
    options: CalibrationOptions,
    *,
    wrap: Wrap = plain,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Calibrated:
    """Float graph → fixed graph by calibration on `samples`. Raises UserError for inputs that do not fit together."""
    refuse_unsupported_formats(config)
    check_names(float_graph, config)
    check_integer_inputs(float_graph, config)
    if not samples:
        raise UserError("there are no calibration samples", stage="calibrate")
    inputs = {name: float_graph[name] for name in float_graph.inputs}
    check_normalisation(config, preprocessors, samples[0], inputs)
    feeds = FloatFeeds(config, tuple(preprocessors), inputs)
    check_outputs(float_graph)
    level = options.level
    warn_of_pointless_level(level, config)
    searched = searched_tensors(prepare(float_graph)) if LEVELS.index(level) >= 2 else []
    processes = process_count(options.processes, len(samples))
    statistics = gather(float_graph, feeds, samples, searched, processes=processes, wrap=wrap)
    kept = spread(samples, CORRECTION_SAMPLES // 2 if options.memory_saving else CORRECTION_SAMPLES)
    calibration = Calibration(
        float_graph,
        statistics,
        list(feeds.load(kept)),
        config.conv,
        threshold=options.threshold,
        max_int16_macs=options.max_int16_macs,
        wide=code_inputs(config),
        on_step=on_step,
    )
    plan = calibration.run(level)
    graph = attach(calibration.fixed(plan), config)
    graph.metadata["config"] = config.text
    graph.metadata["calibration"] = {
        "level": level,
        "samples": len(samples),
        "sensitivity_threshold": options.threshold,
        "max_int16_macs": options.max_int16_macs,
        "memory_saving": options.memory_saving,
        "steps": [asdict(step) for step in calibration.steps],
        "bits16": [name for name, mac in plan.macs.items() if mac.bits == 16],
    }
    return Calibrated(graph, plan, statistics, tuple(calibration.steps))


def warn_of_pointless_level(level: str, config: InputConfig) -> None:
    """Say that levels above L2 gain nothing where all convolutions are forced to 16 bit."""
    if config.conv.input_format == "ALL_INT16" and LEVELS.index(level) > 1:
        _log.warning(
            "input_format=ALL_INT16 in %s: levels above L2 search 8-bit ranges, of which there are none", config.path
        )


def code_inputs(config: InputConfig) -> frozenset[str]:
    """Inputs that the user feeds as codes: RAWDATA_S16, and RAWDATA_F32 that is not quantised inside."""
    return frozenset(
        spec.name
        for spec in config.inputs
        if not spec.is_picture and (spec.training_format != "RAWDATA_F32_NHWC" or not spec.quantize)
    )


def check_outputs(graph: Graph) -> None:
    """Raise UserError for outputs that are not real numbers, or that no input has a part in: they cannot be
    quantised.
    """
    produced = graph.producers()
    problems = []
    for name in graph.outputs:
        reason = "is a constant" if name not in produced and name not in graph.inputs else ""
        reason = reason if graph[name].dtype.is_float else "is an integer, which a fixed network does not return"
        if reason:
            remedy = "leave it out of [OUTPUT_CONFIG] outputs"
            problems.append(UserError(reason, stage="calibrate", node=f"output '{name}'", remedy=remedy))
    raise_all(problems, stage="calibrate")


def spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """At most `count` samples, evenly spread over the list."""
    if len(samples) <= count:
        return list(samples)
    return [samples[i * len(samples) // count] for i in range(count)]


def check_normalisation(
    config: InputConfig, preprocessors: Sequence[Preprocessor], sample: Sample, inputs: Mapping[str, Fed]
) -> None:
    """Raise UserError when the mean and std of the ini are not what the preprocess script does."""
    floats = float_inputs(config, preprocessors, sample, inputs)
    fixed = fixed_inputs(config, preprocessors, sample, inputs)
    for spec in config.inputs:
        mismatch = normalisation_mismatch(spec, fixed[spec.name], floats[spec.name])
        if mismatch is not None:
            raise UserError(
                f"mean/std_value disagree with the preprocess script: {mismatch}",
                stage="calibrate",
                file=config.path,
                node=f"input '{spec.name}'",
                remedy="make [INPUT_CONFIG] mean and std_value say what the script does with norm=True",
            )


# -- compile -----------------------------------------------------------------------------------------------------------
def compile_fixed(
    graph: Graph, chip: Chip, *, batch_mode: str = "n_buf", batches: Sequence[int] = (1,), category: str = "Unknown"
) -> Image:
    """Fixed graph → offline image for a chip. Raises UserError for operators or sizes that the chip does not take."""
    return compile_graph(graph, chip, batch_mode=batch_mode, batches=tuple(batches), category=category)


# -- configuration -----------------------------------------------------------------------------------------------------
def load_config(path: Path) -> InputConfig:
    """The ini, validated."""
    return read_input_config(path)


def plan_record(calibrated: Calibrated) -> str:
    """The plan and the steps that led to it as JSON text."""
    record = json.loads(calibrated.plan.to_json())
    record["steps"] = [asdict(step) for step in calibrated.steps]
    return json.dumps(record, indent=1)
