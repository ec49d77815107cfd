"""What a model file is and holds, in facts and in lines: a .sim's facts are gathered here, all are told here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sgs.errors import Problems, UserError
from sgs.ir.graph import Graph, Tensor
from sgs.report.columns import aligned
from sgs.sim.read import SimFile

Facts = dict[str, Any]
_LABEL = 16  # characters
_SIM_KINDS = {
    "debug": "untouched import .sim",
    "float": "float .sim",
    "fixed": "fixed .sim",
}


def sim_facts(sim: SimFile, path: Path) -> Facts:
    """Those of a .sim as JSON-like values."""
    graph = sim.graph
    constants = [tensor for tensor in graph.tensors.values() if tensor.is_constant]
    source = graph.metadata.get("source")
    return {
        "kind": _SIM_KINDS[sim.stage],
        "file": str(path),
        "file_bytes": path.stat().st_size,
        "graph": graph.name,
        "source": source if isinstance(source, dict) else {},
        "inputs": [_port(graph[name]) for name in graph.inputs],
        "outputs": [_port(graph[name]) for name in graph.outputs],
        "parameters": {
            "tensors": len(constants),
            "count": sum(tensor.elements for tensor in constants),
            "bytes": sum((tensor.elements * tensor.dtype.bits + 7) // 8 for tensor in constants),
        },
        "operators": operator_counts(graph),
    }


def operator_counts(graph: Graph) -> dict[str, int]:
    """Operator → how many there are, most frequent first."""
    return dict(Counter(node.op for node in graph.nodes).most_common())


def _port(tensor: Tensor) -> Facts:
    return {"name": tensor.name, "dtype": tensor.dtype.name.lower(), "shape": list(tensor.shape), "denotations": {}}


def problem_facts(error: UserError | None) -> list[Facts]:
    """An error as a list of its problems; none for None."""
    found: Sequence[UserError] = () if error is None else error.problems if isinstance(error, Problems) else (error,)
    return [{"node": one.node, "reason": one.reason, "remedy": one.remedy} for one in found]


# -- lines -------------------------------------------------------------------------------------------------------------
def model_text(facts: Mapping[str, Any]) -> str:
    """The facts in lines."""
    lines = [f"{label:{_LABEL}}{value}" for label, value in _rows(facts) if value]
    for side in ("inputs", "outputs"):
        lines += ["", side, *_indented([_port_row(port) for port in facts[side]])]
    if "operators" in facts:
        counts = [(f"{count:>6,}", op) for op, count in facts["operators"].items()]
        lines += ["", f"operators: {sum(facts['operators'].values()):,}", *_indented(counts)]
    for key, title in (("problems", "ConvertTool"), ("not_fixed", "calibrator")):
        if key in facts:
            lines += ["", *_problem_lines(title, facts[key])]
    if "agreement" in facts:
        lines += ["", *facts["agreement"]]
    return "\n".join(lines)


def _rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    parameters, source = facts.get("parameters"), facts.get("source") or {}
    return [
        ("file", f"{facts['file']}, {facts['file_bytes']:,} bytes"),
        ("kind", facts["kind"]),
        ("graph", facts.get("graph", "")),
        ("producer", facts.get("producer", "")),
        ("source", " ".join(str(source[key]) for key in ("file", "producer", "sha256") if source.get(key))),
        ("IR version", str(facts.get("ir_version", ""))),
        ("operator sets", ", ".join(f"{domain} {version}" for domain, version in facts.get("opsets", {}).items())),
        ("chip", facts.get("chip", "")),
        *([("parameters", _parameters_text(parameters))] if parameters else []),
        *(("external data", _external_text(file)) for file in facts.get("external_files", [])),
        ("bodies", f"{facts['subgraphs']:,} of control flow" if facts.get("subgraphs") else ""),
        ("functions", f"{facts['functions']:,} of the model's own" if facts.get("functions") else ""),
        ("assumed shapes", _assumed_text(facts.get("assumed_shapes", {}))),
        ("more", facts.get("more", "")),
    ]


def _parameters_text(parameters: Mapping[str, int]) -> str:
    return f"{parameters['count']:,} in {parameters['tensors']:,} tensors, {parameters['bytes']:,} bytes"


def _external_text(file: Mapping[str, Any]) -> str:
    size = "missing" if file["file_bytes"] is None else f"{file['file_bytes']:,} bytes"
    return f"{file['file']}, {size}, {file['tensors']:,} tensors"


def _assumed_text(shapes: Mapping[str, Sequence[int]]) -> str:
    told = " ".join(f"{name}[{','.join(map(str, shape))}]" for name, shape in shapes.items())
    return f"{told} (say others with -f, -F or --input_shapes)" if told else ""


def _port_row(port: Mapping[str, Any]) -> tuple[str, ...]:
    dims = port["shape"]
    shape = "of unknown rank" if dims is None else f"[{','.join(map(str, dims))}]"
    named = ", ".join(f"axis {axis}: {name}" for axis, name in port["denotations"].items())
    return port["name"], port["dtype"], shape, named


def _problem_lines(tool: str, problems: Sequence[Mapping[str, Any]]) -> list[str]:
    if not problems:
        return [f"{tool}: no problem found"]
    lines = [f"{tool} would refuse it: {len(problems)} problem{'s' * (len(problems) > 1)}"]
    for one in problems:
        where = f"{one['node']}: " if one["node"] else ""
        lines.append(f"  - {where}{one['reason']}" + (f" ({one['remedy']})" if one["remedy"] else ""))
    return lines


def _indented(rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"  {line}" for line in aligned(rows)] if rows else ["  none"]
