"""What [CONV_CONFIG] of an ini asks of a network's sums of products."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from sgs.config.fit import mismatch
from sgs.config.input_config import CONV, ConvSpec, InputConfig
from sgs.config.nearest import listing, nearest
from sgs.errors import UserError
from sgs.ir import Graph, Node
from sgs.quant.edit import mac_nodes

_log = logging.getLogger(__name__)
_FORCED: dict[str, Callable[[Node], int]] = {
    "ALL_UINT8": lambda node: 8,
    "ALL_INT16": lambda node: 16,
    "CONV2D_INT16": lambda node: 8 if node.op == "DEPTHWISE_CONV_2D" else 16,
    "DEPTHWISE_INT16": lambda node: 16 if node.op == "DEPTHWISE_CONV_2D" else 8,
}


def _meant(name: str, nodes: Sequence[Node]) -> str:
    """What to write in place of a name that is no first input of a convolution."""
    made = {text: node.inputs[0] for node in nodes for text in (node.name, node.outputs[0])}
    if name in made:
        return f"the first input of the convolution of that name is {made[name]}"
    operands = list(dict.fromkeys(node.inputs[0] for node in nodes if node.inputs[0]))
    closest = nearest(name, operands)
    return f"did you mean {closest}?" if closest else f"first inputs of convolutions are {listing(operands, 4)}"


def forced_bits(prepared: Graph, conv: ConvSpec) -> dict[str, int]:
    """Result name → bits, as [CONV_CONFIG] asks. The first sum of products keeps 8 bit (manual §1.3.3). What
    `forced_problems` finds fault with has no say."""
    nodes = list(mac_nodes(prepared))
    bits: dict[str, int] = {}
    if conv.input_format is not None:
        bits = {node.outputs[0]: _FORCED[conv.input_format](node) for node in nodes}
    for node in nodes:
        if node.inputs[0] in conv.tensor_arrays:
            bits[node.outputs[0]] = 16
    first = nodes[0] if nodes else None
    exempt = first is not None and first.inputs[0] in prepared.inputs and conv.input_format is None
    if first is not None and exempt and bits.pop(first.outputs[0], None) is not None:
        _log.warning("tensor_arrays: '%s' feeds the first convolution, which stays in 8 bit", first.inputs[0])
    return bits


def forced_problems(prepared: Graph, config: InputConfig) -> list[UserError]:
    """Every `tensor_arrays` name that is no operand 0 of a sum of products."""
    nodes = list(mac_nodes(prepared))
    operands = {node.inputs[0] for node in nodes}
    return [
        mismatch(config, CONV, ["tensor_arrays"], f"no convolution has the first input '{name}'", _meant(name, nodes))
        for name in config.conv.tensor_arrays
        if name not in operands
    ]
