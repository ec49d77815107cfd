"""Primitives whose work depends on the values: how many points a region covers, which boxes overlap, how many numbers
are counted. They take one sample at a time, each the node alone in onnxruntime, on the CPU and without gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnx import helper
from torch import Tensor
from torch.nn import functional

from sgs.engine.lowering import OPSET, session_options
from sgs.retrain.kernels.node import Constants, Make, integers


def _session(op: str, attributes: Mapping[str, Any], dtypes: tuple[np.dtype[Any], ...]) -> onnxruntime.InferenceSession:
    """A session of one node with one result; its operands are x0, x1, …"""
    types = [helper.np_dtype_to_tensor_dtype(dtype) for dtype in dtypes]
    inputs = [helper.make_tensor_value_info(f"x{i}", of_type, None) for i, of_type in enumerate(types)]
    node = helper.make_node(op, [info.name for info in inputs], ["y"], **attributes)
    graph = helper.make_graph([node], op, inputs, [helper.make_empty_tensor_value_info("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString(), session_options(1))


def _in_onnxruntime(op: str) -> Make:
    def make(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
        session = cache(lambda *dtypes: _session(op, attributes, dtypes))

        def run(*operands: Tensor) -> Tensor:
            arrays = [operand.detach().cpu().numpy() for operand in operands]
            feeds = {f"x{i}": array for i, array in enumerate(arrays)}
            (y,) = session(*(array.dtype for array in arrays)).run(None, feeds)
            return torch.from_numpy(y).to(operands[0].device)

        return run

    return make


def _non_max_suppression(attributes: Mapping[str, Any], constants: Constants) -> Callable[..., Tensor]:
    """[boxes, 3], with rows of -1 up to the largest number of boxes that there can be: ONNX's own result has another
    shape for every sample."""
    selected, (most,) = _in_onnxruntime("NonMaxSuppression")(attributes, constants), integers(constants, 2)

    def run(boxes: Tensor, scores: Tensor, *limits: Tensor) -> Tensor:
        rows = selected(boxes, scores, *limits)
        pictures, classes, count = scores.shape
        return functional.pad(rows, (0, 0, 0, pictures * classes * min(most, count) - len(rows)), value=-1)

    return run


KERNELS: dict[str, Make] = {
    "MaxRoiPool": _in_onnxruntime("MaxRoiPool"),
    "NonMaxSuppression": _non_max_suppression,
    "Range": _in_onnxruntime("Range"),
    "RoiAlign": _in_onnxruntime("RoiAlign"),
}
