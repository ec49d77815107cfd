"""What a report for the browser needs beside the cost, from two models of one network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sgs import __version__
from sgs.compare.distributions import distributions
from sgs.compare.pictures import picture_pairs
from sgs.compare.run import compare
from sgs.compare.sim_stage import SimStage
from sgs.compare.stage import Stage
from sgs.data.images import Sample
from sgs.data.preprocess import Preprocessor
from sgs.evaluate.categories import are_scores
from sgs.evaluate.labels import names_beside
from sgs.ir import Graph
from sgs.pipelines import Calibrated, spread
from sgs.quant.gather import Wrap, plain
from sgs.report.compared import Comparison
from sgs.report.comparison import worst
from sgs.report.layer_rows import forms_of
from sgs.report.report_page import CalibrationResult, PicturePair, Report
from sgs.sim import SimFile
from sgs.simulation import Simulator

SAMPLES = 4  # that are compared, counted and shown
WORST, EVERY = 16, 48  # layers whose values are counted: the worst, and all together
_SIMULATED = ("Debug", "Float", "Fixed", "Offline")


def conversion_report(
    source: Path,
    names: tuple[str, str],
    float_graph: Graph,
    calibrated: Calibrated,
    preprocessors: Sequence[Preprocessor],
    samples: Sequence[Sample],
    *,
    category: str,
    facts: Mapping[str, str],
    wrap: Wrap = plain,
) -> Report:
    """The report of a network that was just quantised: its layers, distributions and pictures of a few samples.

    Args:
        source: file of the model; labels.txt beside it names classes.
        names: what the float and the fixed .sim are called.
        facts: settings of the run, before those that the fixed graph tells.

    Raises:
        UserError: a sample cannot be read.
    """
    fixed = calibrated.graph
    real, held = (
        Simulator(SimFile(graph, stage, name))
        for graph, stage, name in zip((float_graph, fixed), ("float", "fixed"), names, strict=True)
    )
    stages, few = (SimStage(real), SimStage(held)), spread(samples, SAMPLES)
    comparison = compare(*stages, preprocessors, wrap(few, "compare"))
    pairs = picture_pairs(real, held, preprocessors, few, category, classes_beside(source, real))
    return Report(
        names[1].removesuffix(".sim").removesuffix("_fixed"),
        facts=(("toolchain", __version__), *facts.items(), *calibration_facts(fixed)),
        comparison=comparison,
        calibration=CalibrationResult(calibrated.layers, calibrated.findings, tuple(fixed.outputs)),
        forms=forms_of(fixed),
        histograms=tuple(distributions(*stages, looked_at(comparison), preprocessors, few, wrap=wrap)),
        pictures=tuple(pairs),
        config=str(fixed.metadata.get("config", "")),
    )


def comparison_report(
    a: Stage,
    b: Stage,
    comparison: Comparison,
    preprocessors: Sequence[Preprocessor],
    samples: Sequence[Sample],
    *,
    wrap: Wrap = plain,
) -> Report:
    """The report of a comparison of two models, A the reference. Pictures only where both can be simulated."""
    few = spread(samples, SAMPLES)
    fixed = b.graph if b.kind == "Fixed" else None
    return Report(
        f"{b.path.name} beside {a.path.name}",
        facts=(("toolchain", __version__), *(() if fixed is None else calibration_facts(fixed))),
        comparison=comparison,
        forms={} if fixed is None else forms_of(fixed),
        histograms=tuple(distributions(a, b, looked_at(comparison), preprocessors, few, wrap=wrap)),
        pictures=tuple(_pictures(a, b, preprocessors, samples)),
        config="" if b.graph is None else str(b.graph.metadata.get("config", "")),
    )


def _pictures(
    a: Stage, b: Stage, preprocessors: Sequence[Preprocessor], samples: Sequence[Sample]
) -> Iterator[PicturePair]:
    """Those of two models that can be simulated, by the category that B says it is of."""
    if all(stage.kind in _SIMULATED for stage in (a, b)):
        real, held = (Simulator(stage.path) for stage in (a, b))
        chosen, names = spread(samples, SAMPLES), classes_beside(b.path, held)
        yield from picture_pairs(real, held, preprocessors, chosen, category_of(held), names)


def classes_beside(file: Path, model: Simulator) -> tuple[str, ...]:
    """Names of a model's classes, of labels.txt beside a file of it."""
    return names_beside(file, math.prod(model.outputs[0].shape) if are_scores(model.outputs) else 0)


def category_of(model: Simulator) -> str:
    """What a model says its outputs are."""
    if model.image is not None:
        return model.image.category
    return "Unknown" if model.graph is None else str(model.graph.metadata.get("category", "Unknown"))


def looked_at(comparison: Comparison) -> dict[str, str | None]:
    """Tensors whose distributions are looked at → their counterparts, in order: the outputs, the worst layers, and
    others evenly spread over the network."""
    wanted = {*comparison.outputs, *(layer.name for layer in worst(comparison.layers)[:WORST])}
    others = [layer.name for layer in comparison.layers if layer.name not in wanted]
    wanted.update(spread(others, max(0, EVERY - len(wanted))))
    return {layer.name: layer.reference for layer in comparison.layers if layer.name in wanted}


def calibration_facts(fixed: Graph) -> list[tuple[str, str]]:
    """How a fixed graph came about, as its metadata tell."""
    found = fixed.metadata.get("calibration", {})
    told = [(key.replace("_", " "), value) for key, value in found.items() if isinstance(value, str | int | float)]
    return [(key, "yes" if value is True else "no" if value is False else str(value)) for key, value in told]
