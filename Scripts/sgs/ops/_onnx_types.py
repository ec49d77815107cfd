"""ONNX's element types, by their numbers in attributes: their names, and what holds them in graphs."""

from __future__ import annotations

from sgs.numeric.types import DType

NAMES: dict[int, str] = {  # as numpy spells them, and as `ImportContext.source_type` does
    **{1: "float32", 10: "float16", 11: "float64", 16: "bfloat16", 9: "bool"},
    **{2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 12: "uint32", 13: "uint64"},
    **{21: "uint4", 22: "int4", 25: "uint2", 26: "int2"},
}
FLOATS = ("float16", "bfloat16", "float32", "float64")  # all held as FLOAT32
WIDE_UNSIGNED = ("uint32", "uint64")  # held as INT32
HELD: dict[str, DType] = {  # types that graphs compute with
    **dict.fromkeys(FLOATS, DType.FLOAT32),
    **dict.fromkeys(("int32", "int64", *WIDE_UNSIGNED), DType.INT32),
    **{"uint8": DType.UINT8, "int8": DType.INT8, "uint16": DType.UINT16, "int16": DType.INT16, "bool": DType.BOOL},
}
