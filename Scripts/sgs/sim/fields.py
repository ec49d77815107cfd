"""Fields of option tables: their names in the schema and in the generated classes, and the enums held as words."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from sgs.sim import generated as schema

_ENUMS: dict[str, Any] = {
    "fused_activation_function": schema.ActivationFunctionType,
    "padding": schema.Padding,
    "in_data_type": schema.TensorType,
    "out_data_type": schema.TensorType,
}


def enum_names(enum: Any) -> dict[int, str]:
    """Number → name of a generated enum."""
    return {value: name for name, value in vars(enum).items() if not name.startswith("_")}


def camel(name: str) -> str:
    """`stride_h` → `strideH`."""
    return re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), name)


def snake(name: str) -> str:
    """`strideH` → `stride_h`."""
    return re.sub(r"[A-Z]", lambda match: f"_{match[0].lower()}", name)


def pack_options(options: dict[str, Any]) -> dict[str, Any]:
    """Options by schema names → fields of the generated class."""
    fields = {}
    for name, value in options.items():
        if name in _ENUMS:
            value = getattr(_ENUMS[name], value)
        fields[camel(name)] = value
    return fields


def unpack_options(record: Any) -> dict[str, Any]:
    """An object of a generated options class → options by schema names, vectors as tuples.

    Raises ValueError for an enum number that the schema does not have.
    """
    options: dict[str, Any] = {}
    for field, value in vars(record).items():
        name = snake(field)
        if name in _ENUMS:
            words = enum_names(_ENUMS[name])
            if value not in words:
                raise ValueError(f"{name} {value} is not known")
            value = words[value]
        options[name] = tuple(value.tolist()) if isinstance(value, np.ndarray) else value
    return options
