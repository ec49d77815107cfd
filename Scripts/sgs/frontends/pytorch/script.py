"""TorchScript archives, made programs of torch.export by running them on tensors without values; what torch.export
cannot follow is left to PyTorch's older exporter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from sgs.errors import UserError
from sgs.frontends.model_file import first_line, refused
from sgs.frontends.onnx_model import Shape
from sgs.frontends.platforms import Asked
from sgs.frontends.pytorch.program import check, check_ports, dtype_name, given_shapes, knows_training, tree_names
from sgs.frontends.pytorch.translate import Program, coarsest, script_to_onnx, to_onnx

_AGAIN = "save it again with torch.jit.save, or better export it with torch.export"
_OLDER = "torch.export cannot follow it, so PyTorch's older exporter translates it"
_IN_TRAINING = "it was saved in training mode, and is taken in inference mode"


class _Running(torch.nn.Module):  # type: ignore[misc]
    """A module that calls a TorchScript module, which torch.export does not take itself."""

    def __init__(self, script: Any) -> None:
        super().__init__()
        self._script = (script,)  # hidden from torch.nn: weights of TorchScript are no Parameters

    def forward(self, *args: Any) -> Any:
        return self._script[0](*args)


def read(path: Path, asked: Asked, dtypes: Sequence[str] | None) -> Program:
    """The program of an archive for the shapes that are asked for. Raises UserError."""
    script = _loaded(path)
    trained = bool(getattr(script, "training", False))
    script.eval()
    for weight in script.parameters():
        weight.requires_grad_(False)
    shapes = _shapes(script, asked, path)
    types = _dtypes(script, dtypes, list(shapes), path)
    tensors = [torch.zeros(shape, dtype=dtype) for shape, dtype in zip(shapes.values(), types, strict=True)]

    def run(tensors: Sequence[Any]) -> list[Any]:
        return [leaf for leaf in pytree.tree_leaves(script(*tensors)) if isinstance(leaf, torch.Tensor)]

    try:
        with torch.no_grad():
            outputs = run(tensors)  # PyTorch says best on real values what is wrong with them
    except Exception as error:  # PyTorch raises whatever it runs into
        raise _not_run(error, tensors, path) from error
    exported = _captured(script, tensors)
    if exported is None:
        trees = tuple(f"output_{index}" for index in range(len(outputs)))
        translate = partial(script_to_onnx, script, tensors, trees, path)
    else:
        check_ports(exported, path)
        check(exported, path)
        trees = tree_names(exported)
        translate = partial(to_onnx, exported, path)
    told = (_OLDER,) if exported is None else ()
    remarks = (_IN_TRAINING,) if trained and (exported is None or knows_training(exported)) else ()
    rounding = coarsest([*tensors, *script.parameters(), *script.buffers()])
    return Program(tuple(shapes), trees, tuple(types), rounding, translate, run, told, remarks)


def _loaded(path: Path) -> Any:
    try:
        script = torch.jit.load(str(path), map_location="cpu")
    except Exception as error:  # PyTorch raises whatever it runs into
        version = f"the installed PyTorch {torch.__version__}"
        reason = f"{version} cannot read it, so it is damaged, or of another version: {_reason(error)}"
        raise refused(path, reason, _AGAIN) from error
    if not hasattr(script, "forward"):
        raise refused(path, "its module has no method forward", _AGAIN)
    return script


def _shapes(script: Any, asked: Asked, path: Path) -> dict[str, Shape]:
    """Shape by argument of forward. TorchScript says none itself, so they must be given, for all inputs that there must
    be and any of those that may be left out."""
    arguments = list(script.forward.schema.arguments)[1:]
    tensors = [a for a in arguments if str(a.type) in ("Tensor", "Optional[Tensor]")]
    tensors = tensors[: next((i for i, a in enumerate(arguments) if a not in tensors), len(arguments))]
    needed = sum(not a.has_default_value() for a in arguments)
    told = ", ".join(f"{a.name}: {a.type}" + " or nothing" * a.has_default_value() for a in arguments)
    if needed > len(tensors):
        raise refused(path, f"takes more than tensors ({told})", "export it with torch.export, which can fix the rest")
    if asked.shapes is None:
        remedy = "give every input's shape with --input_shapes, for example --input_shapes "
        raise refused(path, f"TorchScript says no shapes of its inputs ({told})", remedy + _example(needed))
    count = len(asked.shapes)
    names = [argument.name for argument in tensors]
    if needed <= count <= len(tensors):
        names = names[:count]
    found = given_shapes(names, asked, path)
    assert found is not None
    return {name: found[name] for name in names}


def _example(count: int) -> str:
    return ":".join(["1,3,224,224", *["1,10"] * (count - 1)])


def _dtypes(script: Any, dtypes: Sequence[str] | None, names: list[str], path: Path) -> list[Any]:
    """Element types of the inputs: those that are given, or the type of the weights that are floats."""
    if dtypes is None:
        floats = (weight.dtype for weight in script.parameters() if weight.dtype.is_floating_point)
        return [next(floats, torch.float32)] * len(names)
    if len(dtypes) != len(names):
        reason = f"--input_dtypes names {len(dtypes)} types for {len(names)} inputs ({', '.join(names)})"
        raise refused(path, reason, "give one for each input, separated by commas")
    return [getattr(torch, name) for name in dtypes]


def _captured(script: Any, tensors: list[Any]) -> Any:
    """The program of what a script does with tensors of these shapes and types; None where torch.export cannot follow,
    as where branches depend on values, or sizes on sums and remainders of others in what tracing writes."""
    try:
        exported = torch.export.export(_Running(script), tuple(tensors), strict=False)
    except Exception:  # PyTorch raises whatever it runs into
        return None
    aten = torch.ops.aten
    for node in exported.graph.nodes:
        if node.target is aten._convolution.default:  # what tracing writes, with flags of cuDNN behind
            node.target, node.args = aten.convolution.default, node.args[:9]
    exported.graph_module.recompile()
    _name_weights(exported, script)
    return exported


def _not_run(error: Exception, tensors: list[Any], path: Path) -> UserError:
    shapes = " and ".join(f"{dtype_name(t.dtype)}[{','.join(map(str, t.shape))}]" for t in tensors)
    remedy = "check --input_shapes, and --input_dtypes (indices are int64; default: the type of the weights)"
    return refused(path, f"does not run on {shapes}: {_reason(error)}", remedy)


def _reason(error: Exception) -> str:
    """The line of a message of the TorchScript interpreter that says what is wrong."""
    lines = re.findall(r"^\w*(?:Error|Exception): *(\S.*)$", str(error), re.MULTILINE)
    return str(lines[-1]) if lines else first_line(error)


def _name_weights(exported: Any, script: Any) -> None:
    """Give constants of a program the names that they have in the script."""
    names = {tensor.data_ptr(): name for name, tensor in (*script.named_parameters(), *script.named_buffers())}
    for spec in exported.graph_signature.input_specs:
        constant = exported.constants.get(spec.target)
        name = names.get(constant.data_ptr()) if isinstance(constant, torch.Tensor) else None
        if name is not None and name not in exported.constants:
            exported.constants[name] = exported.constants.pop(spec.target)
            spec.target = name
