"""The ONNX primitives that the FLOAT rows emit, as torch functions of the same meaning (opset 21).

A kernel is made once for a node, from its attributes and the operands that are constants, and called with tensors of
the graph's own shapes, constants among them; many samples at a time by `torch.func.vmap`. It never asks for a value,
and writes into no operand. Gradients flow wherever the function has one.
"""

from __future__ import annotations

from sgs.retrain.kernels import elementwise, indices, moves, reductions, samples, windows
from sgs.retrain.kernels.node import Make

KERNELS: dict[str, Make] = {
    **elementwise.KERNELS,
    **moves.KERNELS,
    **indices.KERNELS,
    **reductions.KERNELS,
    **windows.KERNELS,
    **samples.KERNELS,
}
BY_SAMPLE = frozenset(samples.KERNELS)  # what vmap cannot take: to be called on one sample at a time
