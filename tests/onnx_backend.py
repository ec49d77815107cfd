"""The tests that the installed onnx package brings, each through import, float .sim and float simulator.

Every input is fed at run time, except those that an operator needs as constants: when the import asks for one, it is
baked into the model from the test's data, and the import tried again.

`python tests/onnx_backend.py [KIND ...]` prints what passes, by operator.
"""

from __future__ import annotations

import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test import loader

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Scripts"))

from sgs.engine import FloatEngine
from sgs.errors import NeedsConstant, Problems, UserError
from sgs.frontends.onnx_import import import_model
from sgs.frontends.onnx_model import normalised
from sgs.ir import Graph
from sgs.ir.permute import NCHW_TO_NHWC, NHWC_TO_NCHW
from sgs.passes.pipeline import optimise
from sgs.sim import read_sim, write_sim

KINDS = ("node", "light", "simple", "pytorch-converted", "pytorch-operator")
PASSED, UNSUPPORTED, WRONG = "passed", "unsupported", "wrong"
_HALF = {"float16": 1e-3, "bfloat16": 8e-3}  # half a unit in the last place of these types, generously


@dataclass(frozen=True)
class Outcome:
    """`kind` is PASSED, UNSUPPORTED or WRONG; `reason` says why it did not pass; `baked` the inputs made constant."""

    kind: str
    reason: str = ""
    baked: tuple[str, ...] = ()


@dataclass(frozen=True)
class LightCase:
    """One of the whole networks without weights of their own: a ramp of a picture, and the result that is kept."""

    path: Path
    rtol: float = 1e-3
    atol: float = 1e-5

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def model(self) -> ModelProto:
        return onnx.load(self.path)

    @property
    def data_sets(self) -> list[tuple[list[Any], list[Any]]]:
        graph = self.model.graph
        with_value = {tensor.name for tensor in graph.initializer}
        (fed,) = (value for value in graph.input if value.name not in with_value)
        shape = tuple(dim.dim_value for dim in fed.type.tensor_type.shape.dim)
        count = int(np.prod(shape))
        picture = (np.arange(count).reshape(shape) / count).astype(np.float32)
        kept = self.path.with_name(f"{self.path.stem}_output_0.pb").read_bytes()
        return [([picture], [numpy_helper.to_array(onnx.TensorProto.FromString(kept))])]


def load_cases(kind: str) -> list[Any]:
    """The package's tests of one kind, by name."""
    if kind == "light":
        folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
        return [LightCase(path) for path in sorted(folder.glob("*.onnx"))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = loader.load_model_tests(kind=kind)
    return sorted(cases, key=lambda case: str(case.name))


def model_and_data(case: Any) -> tuple[ModelProto, list[tuple[list[Any], list[Any]]]]:
    """The model of a test and its (inputs, outputs), in memory or read from the test's folder."""
    if case.model is not None:
        return case.model, [tuple([_array(v) for v in side] for side in pair) for pair in case.data_sets]
    folder = Path(case.model_dir)
    model = onnx.load(folder / "model.onnx")
    data = []
    for part in sorted(folder.glob("test_data_set_*")):
        sides = []
        for stem, values in (("input", model.graph.input), ("output", model.graph.output)):
            files = [part / f"{stem}_{index}.pb" for index in range(len(values))]
            sides.append([_read_value(file, value) for file, value in zip(files, values, strict=True) if file.exists()])
        data.append((sides[0], sides[1]))
    return model, data


def _array(value: Any) -> Any:
    """Tensors of ONNX as arrays; anything else as it is."""
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def _read_value(file: Path, value: onnx.ValueInfoProto) -> Any:
    if not value.type.HasField("tensor_type"):
        return None
    return numpy_helper.to_array(TensorProto.FromString(file.read_bytes()))


def run_case(case: Any, folder: Path) -> Outcome:
    """One test of the package: all its data sets, the first that does not pass."""
    model, data = model_and_data(case)
    outcomes = [run_model(model, *pair, rtol=case.rtol, atol=case.atol, folder=folder) for pair in data]
    return next((outcome for outcome in outcomes if outcome.kind != PASSED), outcomes[0])


def run_model(
    model: ModelProto, inputs: Sequence[Any], outputs: Sequence[Any], *, rtol: float, atol: float, folder: Path
) -> Outcome:
    """Import the model, write and read the optimised float .sim, run it, compare with `outputs`."""
    names = [value.name for value in model.graph.input]
    with_value = {tensor.name for tensor in model.graph.initializer}
    names = [name for name in names if name not in with_value] if len(inputs) < len(names) else names
    feeds = dict(zip(names, inputs, strict=True))
    try:
        graph, baked = imported(model, feeds)
        optimise(graph)
        path = folder / "case.sim"
        write_sim(graph, path, stage="float")
        graph = read_sim(path).graph
    except UserError as error:
        return Outcome(UNSUPPORTED, error.reason if not isinstance(error, Problems) else error.problems[0].reason)
    try:
        values = run_graph(graph, {name: value for name, value in feeds.items() if name not in baked})
    except Exception:
        return Outcome(WRONG, traceback.format_exc().strip().splitlines()[-1], baked)
    padded = any(node.op_type == "NonMaxSuppression" for node in model.graph.node)
    for value, truth in zip(values, outputs, strict=True):
        reason = difference(selected(value, len(truth)) if padded else value, truth, rtol, atol)
        if reason:
            return Outcome(WRONG, reason, baked)
    return Outcome(PASSED, baked=baked)


def imported(model: ModelProto, feeds: dict[str, Any]) -> tuple[Graph, tuple[str, ...]]:
    """(imported graph, inputs that had to be baked). Raises UserError."""
    arrays = {name: value for name, value in feeds.items() if isinstance(value, np.ndarray)}
    baked = [name for name, value in arrays.items() if not value.size]  # nothing to feed
    while True:
        fixed = _baked(model, feeds, baked)
        shapes = {name: value.shape for name, value in arrays.items() if name not in baked}
        try:
            layouts: Any = dict.fromkeys([*shapes, *(value.name for value in model.graph.output)], "NCHW")
            graph = import_model(
                normalised(fixed, Path("case.onnx")), input_shapes=shapes, source_layouts=layouts, skip_simplify=True
            )
        except UserError as error:
            problems = error.problems if isinstance(error, Problems) else (error,)
            wanted = [problem.operand for problem in problems if isinstance(problem, NeedsConstant)]
            more = _roots(model, wanted) - set(baked)
            if not more:
                raise
            baked += sorted(more)
        else:
            return graph, tuple(baked)


def _baked(model: ModelProto, feeds: dict[str, Any], names: Iterable[str]) -> ModelProto:
    fixed = ModelProto()
    fixed.CopyFrom(model)
    fixed.graph.initializer.extend(numpy_helper.from_array(np.asarray(feeds[name]), name) for name in names)
    return fixed


def _roots(model: ModelProto, names: Iterable[str]) -> set[str]:
    """The model's inputs that these values are computed from."""
    producers = {name: node for node in model.graph.node for name in node.output}
    inputs = {value.name for value in model.graph.input}
    found: set[str] = set()
    pending, seen = list(names), set(names)
    while pending:
        name = pending.pop()
        if name in inputs:
            found.add(name)
        elif name in producers:
            more = [n for n in producers[name].input if n and n not in seen]
            seen.update(more)
            pending += more
    return found


def run_graph(graph: Graph, feeds: dict[str, Any]) -> list[Any]:
    """The outputs of a float graph on arrays in the source's layout, in that layout."""
    arrays = {}
    for name, value in feeds.items():
        value = value.transpose(NCHW_TO_NHWC) if value.ndim == 4 else value
        arrays[name] = value.astype(graph[name].dtype.numpy)
    values = FloatEngine(graph, threads=1).run(arrays)
    return [v.transpose(NHWC_TO_NCHW) if v.ndim == 4 else v for v in (values[name] for name in graph.outputs)]


def difference(value: Any, truth: Any, rtol: float, atol: float) -> str:
    """Why `value` is not what the test expects, "" where it is."""
    if not isinstance(truth, np.ndarray):
        truth = np.asarray(truth)
    if value.shape != truth.shape:
        return f"shape {value.shape}, expected {truth.shape}"
    name = truth.dtype.name
    real = truth.dtype.kind == "f" or name.startswith(("bfloat", "float"))
    if not real:
        wrong = int(np.sum(value != truth))
        return f"{wrong} of {truth.size} differ" if wrong else ""
    wide = truth.astype(np.float64)
    half = _HALF.get(name, 0)
    rtol = max(rtol, half)
    # values that a double holds and a float does not count as infinite
    wide = np.where(np.abs(wide) > np.finfo(np.float32).max, np.copysign(np.inf, wide), wide)
    # inner steps of a test in half precision are rounded too, by the size of what they add up
    largest = np.abs(wide[np.isfinite(wide)]).max(initial=0)
    close = np.isclose(value, wide, rtol=rtol, atol=max(atol, 1e-6, half * largest / 4), equal_nan=True)
    return "" if close.all() else f"{int(np.sum(~close))} of {truth.size} differ"


def selected(value: Any, count: int) -> Any:
    """The first `count` rows of what NonMaxSuppression gives, where all others say that nothing is selected: -1."""
    return value[:count] if (value[count:] == -1).all() else value


def operator_of(case: Any) -> str:
    """The operator that a test is about, for the summary."""
    model, _ = model_and_data(case)
    ops = list(dict.fromkeys(node.op_type for node in model.graph.node))
    name = str(case.name).removeprefix("test_").split("_")[0]
    return ops[0] if len(ops) == 1 else f"{name} (body)"


def summary(outcomes: dict[str, Outcome], operators: dict[str, str]) -> str:
    """A line per operator: passed, unsupported, wrong."""
    counts: dict[str, Counter[str]] = {}
    for name, outcome in outcomes.items():
        counts.setdefault(operators[name], Counter())[outcome.kind] += 1
    lines = [f"{'operator':32s} {PASSED:>8s} {UNSUPPORTED:>12s} {WRONG:>6s}"]
    for op, count in sorted(counts.items()):
        lines.append(f"{op:32s} {count[PASSED]:8d} {count[UNSUPPORTED]:12d} {count[WRONG]:6d}")
    total = Counter(outcome.kind for outcome in outcomes.values())
    lines.append(f"{'all':32s} {total[PASSED]:8d} {total[UNSUPPORTED]:12d} {total[WRONG]:6d}")
    return "\n".join(lines)


def main(kinds: Sequence[str], pattern: str = "") -> None:
    for kind in kinds or KINDS:
        outcomes, operators = {}, {}
        with tempfile.TemporaryDirectory() as folder:
            for case in load_cases(kind):
                if pattern not in case.name:
                    continue
                outcomes[case.name] = run_case(case, Path(folder))
                operators[case.name] = operator_of(case)
        for name, outcome in outcomes.items():
            if outcome.kind != PASSED:
                print(f"{outcome.kind:12s} {operators[name]:24s} {name}: {outcome.reason}")
        print(f"== {kind}\n{summary(outcomes, operators)}")


if __name__ == "__main__":
    main(sys.argv[1:2], *sys.argv[2:3])
