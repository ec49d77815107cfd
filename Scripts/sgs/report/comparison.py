"""A comparison of two models for the terminal, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from sgs.config.nearest import counted, listing
from sgs.report.calibration import short
from sgs.report.compared import ComparedLayer, Comparison, Errors

WORST = 10  # layers in the table
WIDTH = 100  # characters of a line
NAME, OPERATOR = 32, 13
_COLUMNS = f"{{}} {{:<{NAME}}} {{:<{OPERATOR}}} {{:>4}} {{:>6}} {{:>6}} {{:>8}} {{:>7}} {{:>7}} {{:>7}}"
_HEADER = ("layer", "operator", "bits", "alone", "so far", "cosine", "rel. L1", "RMSE", "max")
_LEGEND = (
    "alone, so far: signal to noise in dB (at most 120) with the layer fed from A, and as it comes out of B; "
    'the others of the latter: cosine similarity, relative L1 (the vendor\'s "RMSE"), true RMSE, largest difference.'
)


def comparison_text(comparison: Comparison, *, every: bool = False) -> str:
    """What was compared, the worst layers and the outputs, or `every` layer in order, and what is wrong."""
    samples = counted(comparison.samples, "sample")
    lines = [f"A  {comparison.a}", f"B  {comparison.b}", f"{counted(len(comparison.layers), 'layer')} on {samples}"]
    if comparison.unmatched:
        lines[-1] += f"; {counted(len(comparison.unmatched), 'tensor')} of B without a counterpart in A"
        lines += _wrapped(f"without a counterpart: {listing(comparison.unmatched, 6)}")
    lines.append("")
    bad = comparison.first_bad
    if every:
        lines += [*_table("all layers", comparison.layers, bad), ""]
    else:
        lines += [*_table("worst layers", worst(comparison.layers)[:WORST], bad), ""]
        lines += _outputs(comparison)
    lines += [*_wrapped(_LEGEND), "", *_causes(comparison)]
    return "\n".join(line.rstrip() for line in lines)


def worst(layers: Sequence[ComparedLayer]) -> list[ComparedLayer]:
    """The worst first, by signal to noise, and of those that have the most by the relative error. Where layers were
    measured alone, those that were, and inputs: others only move what these have lost. What jumps is left out."""

    def goodness(layer: ComparedLayer) -> tuple[float, float]:
        error = layer.isolated or layer.accumulated
        return error.sqnr, -error.relative_l1

    judged = [layer for layer in layers if not layer.jumps]
    alone = [layer for layer in judged if layer.isolated is not None or not layer.operator]
    return sorted(alone if any(layer.isolated for layer in judged) else judged, key=goodness)


def _outputs(comparison: Comparison) -> Iterator[str]:
    for title, names in (("outputs", comparison.outputs), (_INSTEAD, comparison.stand_ins)):
        told = [layer for layer in comparison.layers if layer.name in names]
        if told:
            yield from (*_table(title, told, comparison.first_bad), "")


_INSTEAD = "judged in place of outputs that are selected, counted or not in A"


def _table(title: str, layers: Sequence[ComparedLayer], bad: str | None) -> Iterator[str]:
    yield f"{title}:"
    yield _COLUMNS.format(" ", *_HEADER)
    for layer in layers:
        error = layer.accumulated
        alone = "-" if layer.isolated is None else f"{layer.isolated.sqnr:.1f}"
        operator = (layer.operator or "input").removesuffix("_2D")
        operator = operator if len(operator) <= OPERATOR else f"{operator[: OPERATOR - 1]}…"
        numbers = (f"{error.cosine:.6f}", *(_brief(n) for n in (error.relative_l1, error.rmse, error.max_abs)))
        mark = "*" if layer.name == bad else " "
        yield _COLUMNS.format(mark, short(layer.reference), operator, layer.bits, alone, f"{error.sqnr:.1f}", *numbers)


def _brief(number: float) -> str:
    """In at most seven characters."""
    if number == 0 or 1e-3 <= number < 1e5:
        return f"{number:.3g}" if number < 1000 else f"{number:.0f}"
    return f"{number:.1e}"


def _causes(comparison: Comparison) -> Iterator[str]:
    if not comparison.causes:
        yield from _wrapped(_healthy(comparison))
        return
    bad = comparison.first_bad
    yield from _wrapped("What is wrong:" if bad is None else f"First bad layer (*): {bad}")
    for number, cause in enumerate(comparison.causes, 1):
        yield from _wrapped(f"{number}. {cause.layer}: {cause.reason}", "   ")
        yield from _wrapped(f"   → {cause.remedy}", "     ")


def _healthy(comparison: Comparison) -> str:
    """How the two agree, where no layer is bad."""
    if all(layer.accumulated.max_abs == 0 for layer in comparison.layers):
        return "Nothing is wrong: every number of B is the one that A has."
    outputs = [layer for layer in comparison.layers if layer.name in comparison.outputs]
    others = [layer.reference for layer in outputs if layer.jumps and layer.accumulated.max_abs > 0]
    if comparison.stand_ins:
        told = (
            "Nothing is wrong: no layer is bad, and what the outputs are made from is that of A within what B can hold."
        )
        return f"{told} {_JUMPS} {listing(others)} do not tell how near B is." if others else told
    if others:
        return f"No layer is bad. {_JUMPS} {listing(others)} do not tell how good B is: judge it on labelled samples."
    if not outputs:
        return "No layer is bad; outputs of B are not in A, and were not compared."
    return "Nothing is wrong: no layer is bad, and the outputs are those of A within what B can hold."


_JUMPS = "What is selected or counted jumps with the least change, so that the errors of"


def _wrapped(text: str, indent: str = "") -> list[str]:
    """Lines of WIDTH characters; names, which one copies from here, stay whole."""
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def comparison_record(comparison: Comparison) -> str:
    """Everything as JSON text, indent 1; what is infinite or no number is null."""
    return json.dumps(_plain(asdict(comparison)), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def comparison_csv(comparison: Comparison) -> str:
    """A row a layer, in B's execution order; measures of the layer alone begin with `isolated_`; flags are 0 or 1."""
    measures = [field.name for field in fields(Errors)]
    plain = ["name", "reference", "operator", "shape", "bits", "weight_bits", "low", "high"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*plain, *measures, *(f"isolated_{name}" for name in measures), "jumps", "output", "first_bad"])
    for layer in comparison.layers:
        facts = [getattr(layer, name) for name in plain]
        facts[3] = "x".join(map(str, layer.shape))
        errors = [getattr(layer.accumulated, name) for name in measures]
        alone = ["" if layer.isolated is None else getattr(layer.isolated, name) for name in measures]
        told = [int(layer.jumps), int(layer.name in comparison.outputs), int(layer.name == comparison.first_bad)]
        writer.writerow(["" if value is None else value for value in (*facts, *errors, *alone, *told)])
    return text.getvalue()
