"""What an image says of itself: where it comes from, its size, what goes in and comes out, what a frame costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgs.compile import summarise
from sgs.config.chips import Chip
from sgs.img.image import FORMAT_VERSION, BatchMode, Image, IoTensor
from sgs.numeric.quantise import QuantParams

_LABEL = 24  # characters


def image_facts(image: Image, chip: Chip | None, file_bytes: int) -> dict[str, Any]:
    """The facts as JSON-like values; `chip` is None for one that this version does not know, seconds are None then."""
    n_buf = image.batch_mode is BatchMode.N_BUF
    return {
        "format_version": FORMAT_VERSION,
        "tool_version": image.tool_version,
        "model": image.model_name,
        "chip": image.chip,
        "category": image.category,
        "file_bytes": file_bytes,
        "weights_bytes": int(image.weights.size),
        "coded_weights_bytes": sum(len(chunk.data) for chunk in image.chunks),
        "batch_mode": image.batch_mode.name.lower(),
        "max_batch": image.batches[-1],
        "supported_batches": None if n_buf else list(image.batches),
        "inplace_inputs": image.inplace_inputs,
        "variable_buffer_bytes": max(program.arena_size for program in image.programs),
        "sram_bytes": max(program.sram_size for program in image.programs),
        "sram_capacity_bytes": image.sram_bytes,
        "layers": len(image.layers),
        "commands": len(image.programs[0].commands),
        "cost": _cost(image, chip),
        "inputs": [_port(image, port) for port in image.inputs],
        "outputs": [_port(image, port) for port in image.outputs],
    }


def _cost(image: Image, chip: Chip | None) -> dict[str, Any]:
    """Of one frame."""
    seconds = frames = None
    if chip is not None:
        summary = summarise(image, chip)
        seconds, frames = summary.latency, summary.frames_per_second
    return {
        "cycles": image.programs[0].cycles,
        "latency_seconds": seconds,
        "frames_per_second": frames,
        "macs": sum(layer.macs for layer in image.layers),
        "vector_ops": sum(layer.vector_ops for layer in image.layers),
        "dram_read_bytes": sum(layer.read_bytes for layer in image.layers),
        "dram_written_bytes": sum(layer.written_bytes for layer in image.layers),
    }


def _port(image: Image, port: IoTensor) -> dict[str, Any]:
    return {
        "name": port.name,
        "shape": list(port.shape),
        "layout": port.layout,
        "dtype": port.dtype.name,
        "bytes": image.tensors[port.tensor].nbytes,
        "picture_shape": list(port.picture_shape) or None,
        "entries": port.entries or None,
        "format": port.format,
        "training_format": port.training_format,
        "width_alignment": port.width_alignment,
        "height_alignment": port.height_alignment,
        **quant_facts(port.quant),
        "mean": list(port.mean),
        "std": list(port.std),
    }


def quant_facts(quant: QuantParams | None) -> dict[str, Any]:
    """Scale and zero point; of parameters per channel also the axis, how many there are and their range."""
    if quant is None:
        return {"scale": None, "zero_point": None}
    if quant.per_tensor:
        return {"scale": float(quant.scale[0]), "zero_point": int(quant.zero_point[0])}
    return {
        "scale": {
            "axis": quant.axis,
            "count": int(quant.scale.size),
            "min": float(quant.scale.min()),
            "max": float(quant.scale.max()),
        },
        "zero_point": {"min": int(quant.zero_point.min()), "max": int(quant.zero_point.max())},
    }


def quant_text(facts: Mapping[str, Any]) -> str:
    """`quant_facts` in words, "-" where there are none."""
    scale, zero = facts["scale"], facts["zero_point"]
    if scale is None:
        return "-"
    if isinstance(scale, dict):
        zeros = f"{zero['min']}" if zero["min"] == zero["max"] else f"{zero['min']}..{zero['max']}"
        return f"{scale['count']} scales {scale['min']:.6g}..{scale['max']:.6g} on axis {scale['axis']}, zero {zeros}"
    return f"scale {scale:.6g}, zero {zero}"


def image_text(facts: Mapping[str, Any]) -> str:
    """The facts in lines."""
    cost = facts["cost"]
    latency = f"{cost['cycles']:,} cycles"
    if cost["latency_seconds"] is not None:
        latency = f"{cost['latency_seconds'] * 1e3:.3f} ms, {cost['frames_per_second']:.1f} FPS ({latency}, modelled)"
    batches = facts["supported_batches"]
    several = ("batches", ", ".join(map(str, batches))) if batches else ("largest batch", str(facts["max_batch"]))
    rows = [
        ("format version", str(facts["format_version"])),
        ("tool version", facts["tool_version"] or "-"),
        ("model", facts["model"] or "-"),
        ("chip", facts["chip"]),
        ("category", facts["category"]),
        ("file", f"{facts['file_bytes']:,} bytes"),
        ("weights", f"{facts['weights_bytes']:,} bytes, {facts['coded_weights_bytes']:,} coded"),
        ("batch mode", facts["batch_mode"]),
        several,
        ("in-place inputs", "yes, a run overwrites its inputs" if facts["inplace_inputs"] else "no"),
        ("arena (variable buffer)", f"{facts['variable_buffer_bytes']:,} bytes"),
        ("SRAM", f"{facts['sram_bytes']:,} of {facts['sram_capacity_bytes']:,} bytes"),
        ("commands", f"{facts['commands']:,} for {facts['layers']:,} layers"),
        ("work of a frame", f"{cost['macs']:,} MAC, {cost['vector_ops']:,} vector operations"),
        ("DRAM traffic of a frame", f"{cost['dram_read_bytes']:,} bytes read, {cost['dram_written_bytes']:,} written"),
        ("latency of a frame", latency),
    ]
    lines = [f"{label:{_LABEL}}{value}" for label, value in rows]
    for side in ("input", "output"):
        for port in facts[f"{side}s"]:
            lines += ["", f"{side} {port['name']}", *_port_lines(port)]
    return "\n".join(lines)


def _port_lines(port: Mapping[str, Any]) -> list[str]:
    rows = [
        ("shape", f"{port['dtype']}{port['shape']} {port['layout']}, {port['bytes']:,} bytes"),
        *([("picture", str(port["picture_shape"]))] if port["picture_shape"] else []),
        *([("picks from", f"{port['entries']:,} entries")] if port["entries"] else []),
        ("format", port["format"] or "-"),
        ("training format", port["training_format"] or "-"),
        ("quantisation", quant_text(port)),
    ]
    if port["mean"] or port["std"]:
        rows += [(name, ", ".join(f"{value:g}" for value in port[name]) or "-") for name in ("mean", "std")]
    if (port["width_alignment"], port["height_alignment"]) != (1, 1):
        rows.append(("alignment", f"width {port['width_alignment']}, height {port['height_alignment']}"))
    return [f"  {label:{_LABEL - 2}}{value}" for label, value in rows]
