"""A Paddle model in its .json form, made such that paddle2onnx reads what it says.

paddle2onnx up to 2.1 takes these for something else, without a word:

* attributes of type double, which Paddle 3.3 writes for the slope of a leaky ReLU, the epsilon of a group
  normalisation, the value of a padding and others, for 0, or it stops. Given as floats they are read. Constants
  ("full") have always been doubles, and are read as such;
* the bounds of a hardtanh for -1 and 1, as it looks for them under other names;
* an adaptive pooling to extents that do not divide its operand's, for a pooling with windows of one size.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sgs.errors import UserError, raise_all

_DOUBLE, _FLOAT = "0.a_f64", "0.a_f32"
_HARDTANH_NAMES = {"t_min": "min", "t_max": "max"}
Operator = dict[str, Any]


def readable(content: bytes, file: Path) -> bytes | None:
    """The model as paddle2onnx reads it, None where it does so as it stands, or where it is no .json, which paddle2onnx
    tells itself. Raises UserError naming the operators that it would misread in any form.
    """
    model = _parsed(content)
    if model is None:
        return None
    try:
        operators = list(_operators(model))
        problems = _poolings(operators, file)
        repaired = [_repair(operator) for operator in operators]
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        remedy = "save it again with Paddle 3.0 to 3.3"
        raise UserError("has not the form that is known", stage="convert", file=file, remedy=remedy) from error
    raise_all(problems, stage="convert", file=file)
    return json.dumps(model, separators=(",", ":")).encode() if any(repaired) else None


def kinds(content: bytes) -> list[str]:
    """The kinds of operators in a model; none where it is no .json."""
    model = _parsed(content)
    return [] if model is None else sorted({_kind(operator) for operator in _operators(model)} - {"data", "fetch", "p"})


def _parsed(content: bytes) -> Any:
    """What the .json says, None where it is none of a model."""
    try:
        model = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return model if isinstance(model, dict) and "program" in model else None


def _operators(model: Any) -> Iterator[Operator]:
    """The operators of a program, those of inner blocks behind the one that holds them."""
    pending = list(model["program"]["regions"])
    while pending:
        for block in pending.pop(0)["blocks"]:
            for operator in block["ops"]:
                yield operator
                pending += operator.get("regions", [])


def _kind(operator: Operator) -> str:
    """`1.pool2d` → pool2d; `p` is a parameter."""
    return str(operator["#"]).rpartition(".")[2]


def _attributes(operator: Operator) -> list[dict[str, Any]]:
    """As {"N": name, "AT": {"#": type, "D": value}}; those of parameters have another form, and no names."""
    return [entry for entry in operator.get("A", []) if isinstance(entry, dict)]


def _repair(operator: Operator) -> bool:
    """Change what would be misread of an operator; returns whether there was anything."""
    kind, attributes = _kind(operator), _attributes(operator)
    values = [entry["AT"] for entry in attributes if not kind.startswith("full")]
    values += [item for value in values if value["#"] == "0.a_array" for item in value["D"]]
    doubles = [value for value in values if value["#"] == _DOUBLE]
    for value in doubles:
        value["#"] = _FLOAT
    bounds = [entry for entry in attributes if kind == "hardtanh" and entry["N"] in _HARDTANH_NAMES]
    operator["A"] += [{**entry, "N": _HARDTANH_NAMES[entry["N"]]} for entry in bounds]
    return bool(doubles or bounds)


def _poolings(operators: list[Operator], file: Path) -> list[UserError]:
    """The adaptive poolings with windows of several sizes."""
    shapes: dict[int, list[int]] = {}
    count: Counter[str] = Counter()
    problems = []
    for operator in operators:
        kind = _kind(operator)
        label = f"pd_op.{kind}.{count[kind]}"
        count[kind] += 1
        results = operator["O"] if isinstance(operator["O"], list) else [operator["O"]]  # that of a parameter
        shapes |= {value["%"]: value["TT"]["D"][1] for value in results if value["TT"]["#"] == "0.t_dtensor"}
        adaptive = any(e["N"] == "adaptive" and e["AT"]["D"] for e in _attributes(operator) if "pool" in kind)
        if not adaptive:
            continue
        before, after = (shapes[operator[side][0]["%"]][2:] for side in ("I", "O"))
        if any(extent > 0 and extent % wanted for extent, wanted in zip(before, after, strict=True) if wanted > 0):
            told = " to ".join("x".join(map(str, shape)) for shape in (before, after))
            reason = f"an adaptive pooling of {told}, which paddle2onnx cannot express, and makes another one of"
            remedy = "pool to extents that divide those before"
            problems.append(UserError(reason, stage="convert", file=file, node=label, remedy=remedy))
    return problems
