"""Is this a legal graph? Run between steps, so that the step that broke it is named."""

from __future__ import annotations

from sgs.ir.graph import Graph


def violations(graph: Graph) -> list[str]:
    """Every way in which the graph is not well formed, in words."""
    found: list[str] = []
    defined = {name for name, tensor in graph.tensors.items() if tensor.is_constant} | set(graph.inputs)
    for name in [*graph.inputs, *graph.outputs]:
        if name not in graph.tensors:
            found.append(f"graph input/output '{name}' is not a tensor")
    for name, tensor in graph.tensors.items():
        if tensor.name != name:
            found.append(f"tensor '{tensor.name}' is filed under '{name}'")
        if any(d < 0 for d in tensor.shape):
            found.append(f"tensor '{name}' has shape {tensor.shape}")
        if tensor.data is not None and tuple(tensor.data.shape) != tensor.shape:
            found.append(f"constant '{name}' has shape {tensor.data.shape}, declared {tensor.shape}")
        if tensor.data is not None and tensor.data.dtype != tensor.dtype.numpy:
            found.append(f"constant '{name}' holds {tensor.data.dtype}, declared {tensor.dtype.name}")
        if (
            tensor.quant is not None
            and not tensor.quant.per_tensor
            and (tensor.quant.axis >= len(tensor.shape) or tensor.quant.scale.size != tensor.shape[tensor.quant.axis])
        ):
            found.append(
                f"tensor '{name}' of shape {tensor.shape} has {tensor.quant.scale.size} scales "
                f"on axis {tensor.quant.axis}"
            )
    for node in graph.nodes:
        for operand in node.inputs:
            if operand is not None and operand not in defined:
                found.append(f"{node.label} reads '{operand}' before it is defined")
        for result in node.outputs:
            if result in defined:
                found.append(f"{node.label} defines '{result}' a second time")
            if result not in graph.tensors:
                found.append(f"{node.label} defines '{result}', which is not a tensor")
            defined.add(result)
    for name in graph.outputs:
        if name not in defined:
            found.append(f"graph output '{name}' is never defined")
    return found


def verify(graph: Graph, after: str) -> None:
    """Raise AssertionError naming the step `after` which the graph is not well formed: a defect of ours, not the
    user's.
    """
    found = violations(graph)
    if found:
        raise AssertionError(f"graph is not well formed after {after}:\n" + "\n".join(found[:20]))
