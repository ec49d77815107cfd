"""Programs of torch.export: how they are read, given static shapes, and checked for what has no meaning here."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch._export.serde.schema import SCHEMA_VERSION
from torch.export.pt2_archive._package import load_pt2
from torch.utils import _pytree as pytree

from sgs.errors import UserError, raise_all
from sgs.frontends.model_file import first_line, refused
from sgs.frontends.onnx_model import Shape, shapes_in_order
from sgs.frontends.platforms import Asked
from sgs.frontends.pytorch.files import refuse_foreign, saved_by
from sgs.frontends.pytorch.translate import Program, coarsest, to_onnx

_EXPORT_AGAIN = "export the network again"
_MODES = ("train", "training")  # arguments of operators that behave otherwise in training
_EVAL = "call model.eval() before exporting it"
_PYTORCH = f"the installed PyTorch {torch.__version__}"


@dataclass(frozen=True)
class _Input:
    """A tensor that a program takes, its extents numbers or PyTorch's symbols."""

    name: str
    dtype: Any
    dims: tuple[Any, ...]

    @property
    def told(self) -> str:
        return f"'{self.name}' [{','.join(map(str, self.dims))}]"

    @property
    def static(self) -> bool:
        return all(isinstance(dim, int) for dim in self.dims)


def read(path: Path, asked: Asked, dtypes: Sequence[str] | None) -> Program:
    """The program of a file, with the shapes that are asked for. Raises UserError."""
    loaded = _loaded(path)
    check_ports(loaded, path)
    inputs = _inputs(loaded)
    _check_dtypes(inputs, dtypes, path)
    names = [item.name for item in inputs]
    given = given_shapes(names, asked, path)
    static = all(item.static for item in inputs)
    if given is None and not static:
        raise _not_static(loaded, inputs, path)
    if given is not None:
        _check_shapes(loaded, inputs, given, path)
    exported = loaded if static or given is None else _with_shapes(loaded, inputs, given, path)
    check(exported, path)
    constants = [spec.arg for spec in _user_inputs(loaded) if not _is_tensor(spec)]
    told = tuple(f"'{argument.name}' is {argument.value}, as the network was exported" for argument in constants)
    types = tuple(item.dtype for item in inputs)
    weights = (*exported.state_dict.values(), *exported.constants.values())
    rounding = max(coarsest(weights), coarsest(inputs))
    translate, run = partial(to_onnx, exported, path), partial(_run, loaded)
    return Program(tuple(names), tree_names(exported), types, rounding, translate, run, told)


# -- files -------------------------------------------------------------------------------------------------------------
def _loaded(path: Path) -> Any:
    """The program of a file, of which nothing but tensors is unpickled."""
    form, version = saved_by(path)
    if form not in (0, SCHEMA_VERSION[0]):
        reason = f"was saved by PyTorch {version or '?'} in format {form}, {_PYTORCH} reads format {SCHEMA_VERSION[0]}"
        raise refused(path, reason, "export it with the version that is installed, or install the other one")
    try:
        refuse_foreign(path, torch._C.PyTorchFileReader(str(path)).get_all_records())
        with _tensors_only():
            return load_pt2(str(path)).exported_programs["model"]  # torch.export.load hides why it fails
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        reason = "holds pickled objects other than tensors, which are not loaded"
        raise refused(path, reason, "export it with tensors, lists and dictionaries as example inputs") from error
    except Exception as error:  # PyTorch raises whatever it runs into
        reason = f"{_PYTORCH} cannot read it, so it is damaged, or of another version: {first_line(error)}"
        raise refused(path, reason, _EXPORT_AGAIN) from error


@contextmanager
def _tensors_only() -> Iterator[None]:
    """torch.load unpickles tensors only, whatever its caller asks for."""
    force, never = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    before = {name: os.environ.pop(name) for name in (force, never) if name in os.environ}
    os.environ[force] = "1"
    try:
        yield
    finally:
        del os.environ[force]
        os.environ.update(before)


# -- inputs and outputs ------------------------------------------------------------------------------------------------
def _user_inputs(exported: Any) -> list[Any]:
    return [spec for spec in exported.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]


def _user_outputs(exported: Any) -> list[Any]:
    return [spec for spec in exported.graph_signature.output_specs if spec.kind.name == "USER_OUTPUT"]


def _is_tensor(spec: Any) -> bool:
    return type(spec.arg).__name__ == "TensorArgument"


def _is_constant(spec: Any) -> bool:
    return type(spec.arg).__name__ == "ConstantArgument"


def _inputs(exported: Any) -> list[_Input]:
    """The tensors that a program takes, in order."""
    values = {node.name: node.meta["val"] for node in exported.graph.nodes if node.op == "placeholder"}
    names = [spec.arg.name for spec in _user_inputs(exported) if _is_tensor(spec)]
    return [_Input(name, values[name].dtype, tuple(values[name].shape)) for name in names]


def check_ports(exported: Any, path: Path) -> None:
    """Raise UserError for inputs and outputs that are no tensors. Constant inputs stay what they were at the export,
    outputs that are None are none."""
    problems = [
        refused(path, f"input '{spec.arg.name}' is a number that is free", "export it with that number as a constant")
        for spec in _user_inputs(exported)
        if not (_is_tensor(spec) or _is_constant(spec))
    ]
    for index, spec in enumerate(_user_outputs(exported)):
        if not _is_tensor(spec) and not (_is_constant(spec) and spec.arg.value is None):
            told = getattr(spec.arg, "value", spec.arg.name)
            problems.append(refused(path, f"output {index} is {told}, no tensor", "export a network of tensors"))
    raise_all(problems, stage="convert", file=path)


def _check_dtypes(inputs: Sequence[_Input], dtypes: Sequence[str] | None, path: Path) -> None:
    own = [dtype_name(item.dtype) for item in inputs]
    if dtypes is not None and list(dtypes) != own:
        told = ", ".join(f"'{item.name}' {name}" for item, name in zip(inputs, own, strict=True))
        reason = f"--input_dtypes says {','.join(dtypes)}, the program takes {told}"
        raise refused(path, reason, "leave it out: a program says its types")


def dtype_name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def tree_names(exported: Any) -> tuple[str, ...]:
    """What the tree of results calls each tensor: {"boxes": a, "more": (b, c)} → boxes, more_0, more_1; "" where no key
    of a dictionary or field does."""
    spec = exported.call_spec.out_spec
    outputs = _user_outputs(exported)
    leaves, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten(list(range(len(outputs))), spec))
    names = [_path_name(keys) for keys, _ in leaves]
    return tuple(name for name, output in zip(names, outputs, strict=True) if _is_tensor(output))


def _path_name(keys: Sequence[Any]) -> str:
    parts = [getattr(key, "key", getattr(key, "name", getattr(key, "idx", ""))) for key in keys]
    while parts and isinstance(parts[0], int):
        parts.pop(0)
    return "_".join("".join(c if c.isalnum() or c in "_.-" else "_" for c in str(part)) for part in parts)


# -- shapes ------------------------------------------------------------------------------------------------------------
def given_shapes(names: Sequence[str], asked: Asked, path: Path) -> dict[str, Shape] | None:
    """The shapes that are asked for by the program's own names of its inputs, in whose order they are where the ini has
    other names, as those of a part. Raises UserError for another number."""
    if asked.shapes is None:
        return None
    order = asked.inputs if asked.inputs is not None and set(asked.inputs) == set(names) else names
    return shapes_in_order(asked.shapes, order, path)


def _not_static(exported: Any, inputs: Sequence[_Input], path: Path) -> UserError:
    told = ", ".join(item.told for item in inputs if not item.static)
    example = ":".join(",".join(map(str, shape)) for shape in _possible_shapes(exported, inputs))
    remedy = f"give every input's shape with --input_shapes, for example --input_shapes {example}"
    return refused(path, f"the shape of input {told} is not static", remedy)


def _possible_shapes(exported: Any, inputs: Sequence[_Input]) -> list[list[int]]:
    """Shapes that the program takes: the smallest batch, else what it was exported with."""
    values: dict[Any, int] = {}
    for item in inputs:
        for axis, dim in enumerate(item.dims):
            for symbol in [] if isinstance(dim, int) else sorted(dim.node.expr.free_symbols - set(values), key=str):
                lower, upper = _span(exported, symbol)
                hint = None if axis == 0 else dim.node.hint if dim.node.expr == symbol else None
                values[symbol] = hint or max(1 if axis == 0 else min(224, upper or 224), lower)
    return [[d if isinstance(d, int) else int(d.node.expr.subs(values)) for d in item.dims] for item in inputs]


def _span(exported: Any, expression: Any) -> tuple[int, int | None]:
    """(least, greatest) value of an extent, None where there is no greatest."""
    span = exported.range_constraints.get(expression)
    if span is None:
        return 0, None
    return int(span.lower), int(span.upper) if span.upper.is_Integer else None


def _check_shapes(exported: Any, inputs: Sequence[_Input], given: dict[str, Shape], path: Path) -> None:
    """Raise UserError for shapes that are not those of the program, or that it was not exported for."""
    problems: list[str] = []
    values: dict[Any, int] = {}
    for item in inputs:
        shape = given[item.name]
        if len(shape) != len(item.dims):
            problems.append(f"{','.join(map(str, shape))} does not fit input {item.told}")
            continue
        for axis, (dim, extent) in enumerate(zip(item.dims, shape, strict=True)):
            why = _misfit(exported, dim, extent, values)
            if why:
                problems.append(f"dimension {axis} of input {item.told} cannot be {extent}: {why}")
    remedy = "give other shapes, or export it with dynamic_shapes for these"
    raise_all([refused(path, reason, remedy) for reason in problems], stage="convert", file=path)


def _misfit(exported: Any, dim: Any, extent: int, values: dict[Any, int]) -> str:
    """Why an extent is not one of a dimension, given the `values` of symbols so far, to which it adds; "" if it is."""
    if isinstance(dim, int):
        return "" if dim == extent else f"it was exported as {dim}"
    expression = dim.node.expr
    lower, upper = _span(exported, expression)
    if extent < lower or (upper is not None and extent > upper):
        return f"{dim} is {f'from {lower} to {upper}' if upper is not None else f'{lower} or more'}"
    if expression.is_Symbol:
        known = values.setdefault(expression, extent)
        return "" if known == extent else f"{dim} is {known} in another dimension"
    wanted = expression.subs(values)
    return "" if not wanted.is_Integer or int(wanted) == extent else f"{dim} is {wanted}"


def _with_shapes(exported: Any, inputs: Sequence[_Input], shapes: dict[str, Shape], path: Path) -> Any:
    """The program for static shapes."""
    tensors = [torch.zeros(shapes[item.name], dtype=item.dtype) for item in inputs]
    args, kwargs = _arguments(exported, tensors)
    try:
        return torch.export.export(exported.module(check_guards=False), args, kwargs, strict=False)
    except Exception as error:  # PyTorch raises whatever it runs into
        told = ":".join(",".join(map(str, shapes[item.name])) for item in inputs)
        reason = f"PyTorch cannot run it with the shapes {told}: {first_line(error)}"
        raise refused(path, reason, "give other shapes, or export it for these") from error


# -- running -----------------------------------------------------------------------------------------------------------
def _arguments(exported: Any, tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the author's forward takes, (positional, by name), made of the program's tensors."""
    left = iter(tensors)
    flat = [next(left) if _is_tensor(spec) else spec.arg.value for spec in _user_inputs(exported)]
    args, kwargs = pytree.tree_unflatten(flat, exported.call_spec.in_spec)
    return tuple(args), dict(kwargs)


def _run(exported: Any, tensors: Sequence[Any]) -> list[Any]:
    args, kwargs = _arguments(exported, tensors)
    results = pytree.tree_leaves(exported.module(check_guards=False)(*args, **kwargs))
    kept = [_is_tensor(spec) for spec in _user_outputs(exported)]
    return [result for result, keep in zip(results, kept, strict=True) if keep]


# -- checks ------------------------------------------------------------------------------------------------------------
def check(exported: Any, path: Path) -> None:
    """Raise UserError for operators in training mode, and for state that changes from run to run."""
    found = [(node, "is in training mode", _EVAL) for node in exported.graph.nodes if _trains(node)]
    if not found:  # training mode has state of its own
        remedy = "make the state an input and an output of the network"
        found = [
            (node, f"writes '{state}', so that results depend on the runs before", remedy)
            for node, state in _writes(exported)
        ]
    raise_all(
        [UserError(why, stage="convert", file=path, node=_label(node), remedy=remedy) for node, why, remedy in found],
        stage="convert",
        file=path,
    )


def _schema_arguments(node: Any) -> dict[str, Any]:
    """Argument → value of an operator, defaults included; nothing for what is no operator of PyTorch's."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {}
    found = {argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()}
    found.update(zip((argument.name for argument in schema.arguments), node.args, strict=False))
    return {**found, **node.kwargs}


def _trains(node: Any) -> bool:
    """Whether an operator behaves as in training: batch statistics, or random values that are not all kept."""
    arguments = _schema_arguments(node)
    if not any(arguments.get(name) is True for name in _MODES):
        return False
    return all(arguments.get(name) != 0 for name in ("p", "dropout"))


def knows_training(exported: Any) -> bool:
    """Whether any operator behaves otherwise in training."""
    return any(not _schema_arguments(node).keys().isdisjoint(_MODES) for node in exported.graph.nodes)


def _writes(exported: Any) -> Iterator[tuple[Any, str]]:
    """(operator, state) where an operator writes a weight, buffer or constant, or a view of one, in place."""
    specs = exported.graph_signature.input_specs
    states = {spec.arg.name: spec.target or spec.arg.name for spec in specs if spec.kind.name != "USER_INPUT"}
    of: dict[Any, str] = {}  # of nodes that are, or may be, such a state
    for node in exported.graph.nodes:
        if node.op == "placeholder" and node.name in states:
            of[node] = states[node.name]
        schema = getattr(node.target, "_schema", None)
        if schema is None or not node.args:
            continue
        for argument, value in zip(schema.arguments, node.args, strict=False):
            if argument.alias_info is not None and isinstance(value, torch.fx.Node) and value in of:
                if argument.alias_info.is_write:
                    yield node, of[value]
                of[node] = of[value]


def _label(node: Any) -> str:
    """How messages name an operator of a program, by module and name: aten.conv2d 'layer1.0.conv1.conv2d'."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    name = ".".join(filter(None, [stack[-1][0] if stack else "", node.name]))
    return f"{getattr(node.target, 'overloadpacket', node.target)} '{name}'"
