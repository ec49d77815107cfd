"""Paddle models, through paddle2onnx (see `paddle_tool`), as a platform."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from onnx import GraphProto, ModelProto

from sgs.config.nearest import did_you_mean, listing
from sgs.errors import UserError, gathered, raise_all
from sgs.frontends.model_file import digest_of
from sgs.frontends.onnx_message import nodes_of
from sgs.frontends.onnx_model import SourceModel, fix_shapes, input_ports, normalised
from sgs.frontends.paddle_tool import translate
from sgs.frontends.platforms import Asked, Option, Platform

_log = logging.getLogger(__name__)
_OPSET = 17
_JSON_MODEL = b'"magic":"pir"'
_OLD_MODEL, _OLD_PARAMS = "__model__", "__params__"  # names of Paddle before 2.0
_RESULT = re.compile(r"p2o\.(pd_op\.\w+\.\d+)\.\d+")  # what paddle2onnx calls the results of an operator
_REFUSED = (  # (option, value that is fine, why others are not)
    ("save_file", None, "no .onnx is kept: --output_file names the .sim"),
    ("external_filename", None, "no .onnx is kept, nor data beside it"),
    ("enable_dev_version", True, "the version of paddle2onnx that it stands for is the only one now"),
    ("enable_paddle_fallback", False, "operators that only Paddle can run have no meaning here"),
)


def _load(values: Mapping[str, Any], asked: Asked) -> SourceModel:
    checks = (partial(_check_options, values, asked), partial(_shapes_asked, values), partial(_names_asked, values))
    raise_all(gathered(*checks), stage="convert")
    shapes, names = _shapes_asked(values), _names_asked(values)
    model = _model_file(values["model_dir"], values["model_filename"])
    params = _params_file(model, values["params_filename"])
    proto = translate(model, params, _tool_options(values))
    _name_nodes(proto.graph)
    if names is not None:
        _rename_outputs(proto, names, model)
    source = normalised(proto, model, digest_of(*filter(None, (model, params))))
    return source if shapes is None else _shaped(source, shapes)


# -- options -----------------------------------------------------------------------------------------------------------
def _check_options(values: Mapping[str, Any], asked: Asked) -> None:
    problems = [
        UserError(f"is not taken: {why}", stage="convert", node=f"--{name}", remedy="leave it out")
        for name, fine, why in _REFUSED
        if values[name] not in (None, fine)
    ]
    if values["input_shape_dict"] is not None and asked.shapes is not None:
        problems.append(_misused("input_shape_dict", "says the same as --input_shapes", "give one of the two"))
    raise_all(problems, stage="convert")


def _tool_options(values: Mapping[str, Any]) -> list[str]:
    """The options for paddle2onnx itself."""
    found = ["--opset_version", str(values["opset_version"] or _OPSET)]
    for name in ("enable_auto_update_opset", "enable_onnx_checker", "enable_dist_prim_all"):
        if values[name] is not None:
            found += [f"--{name}", str(values[name])]
    return found


def _misused(option: str, reason: str, remedy: str) -> UserError:
    return UserError(reason, stage="convert", node=f"--{option}", remedy=remedy)


def _literal(text: str) -> object:
    """The Python literal that a text is, None where it is none."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _shapes_asked(values: Mapping[str, Any]) -> dict[str, list[int]] | None:
    """--input_shape_dict."""
    if values["input_shape_dict"] is None:
        return None
    told = _literal(values["input_shape_dict"])

    def is_shape(shape: object) -> bool:
        return isinstance(shape, (list, tuple)) and all(type(extent) is int and extent > 0 for extent in shape)

    if not (isinstance(told, dict) and told and all(isinstance(n, str) and is_shape(s) for n, s in told.items())):
        example = "\"{'image':[1,3,608,608]}\""
        raise _misused(
            "input_shape_dict", f"'{values['input_shape_dict']}' is no dictionary of shapes", f"write it like {example}"
        )
    return told


def _names_asked(values: Mapping[str, Any]) -> list[str] | dict[str, str] | None:
    """--output_names: names of all outputs, or new ones of some by those that they have."""
    if values["output_names"] is None:
        return None
    told = _literal(values["output_names"])
    every = [*told, *told.values()] if isinstance(told, dict) else told
    if not (isinstance(every, list) and every and all(isinstance(name, str) and name for name in every)):
        reason = f"'{values['output_names']}' is no list or dictionary of names"
        raise _misused("output_names", reason, "write it like \"['boxes','scores']\" or \"{'fetch_name_0':'boxes'}\"")
    assert isinstance(told, (list, dict))
    return told


# -- files -------------------------------------------------------------------------------------------------------------
def _model_file(folder: Path, name: str | None) -> Path:
    """The network's file in a folder, the only one there where it is not named. Raises UserError."""
    if not folder.is_dir():
        reason = "is a file" if folder.exists() else "no such folder"
        raise UserError(reason, stage="convert", file=folder, node="--model_dir", remedy="name the model's folder")
    candidates = [path for path in sorted(folder.iterdir()) if path.is_file() and _is_model(path)]
    names = [path.name for path in candidates]
    if name is not None:
        return _named(folder, name, "model_filename", names)
    if len(candidates) != 1:
        reason = "holds no model of a usual name" if not candidates else f"holds {len(candidates)} models"
        remedy = f"name the model's file with --model_filename: {listing(names)}" if names else _USUAL
        raise UserError(reason, stage="convert", file=folder, node="--model_dir", remedy=remedy)
    _log.info("the model of %s is %s", folder, names[0])
    return candidates[0]


_USUAL = "a folder that Paddle saved has inference.json, or inference.pdmodel, and inference.pdiparams"


def _is_model(path: Path) -> bool:
    """Whether a file is a Paddle model by its name; a .json by how it begins."""
    if path.suffix != ".json":
        return path.name == _OLD_MODEL or path.suffix == ".pdmodel"
    with path.open("rb") as file:
        return _JSON_MODEL in file.read(100)


def _params_file(model: Path, name: str | None) -> Path | None:
    """The file of all parameters of a model, the one of its name where it is not named; None where it can have none.

    Raises UserError.
    """
    beside = sorted(path for path in model.parent.iterdir() if path.is_file() and path != model)
    found = [path.name for path in beside if path.suffix == ".pdiparams" or path.name == _OLD_PARAMS]
    if name is not None:
        return _named(model.parent, name, "params_filename", found)
    own = model.with_name(_OLD_PARAMS) if model.name == _OLD_MODEL else model.with_suffix(".pdiparams")
    if own.is_file():
        _log.info("its parameters are %s", own.name)
        return own
    if not found and model.suffix == ".json":
        _log.info("it has no parameters")
        return None
    remedy = f"name it with --params_filename: the folder has {listing(path.name for path in beside)}"
    if not found:
        remedy += "; join many files of parameters to one by loading and saving the model with Paddle"
    raise UserError("has no file of parameters beside it", stage="convert", file=model, remedy=remedy)


def _named(folder: Path, name: str, option: str, known: Sequence[str]) -> Path:
    path = folder / name
    if not path.is_file():
        reason = "is no file" if path.exists() else "no such file"
        raise UserError(
            reason, stage="convert", file=path, node=f"--{option}", remedy=f"the folder has {listing(known)}"
        )
    return path


# -- the model ---------------------------------------------------------------------------------------------------------
def _name_nodes(graph: GraphProto) -> None:
    """Put the Paddle operator that each node is of in front of its name: that whose results come next."""
    operator = ""
    for node in reversed(graph.node):
        results = [match[1] for name in node.output if (match := _RESULT.fullmatch(name))]
        operator = results[0] if results else operator
        node.name = f"{operator}/{node.name}" if operator and node.name else node.name


def _rename_outputs(proto: ModelProto, names: list[str] | dict[str, str], model: Path) -> None:
    """Give outputs other names. Raises UserError for names that do not go with them."""
    present = [value.name for value in proto.graph.output]
    if isinstance(names, list):
        if len(names) != len(present):
            reason = f"names {len(names)} outputs, the model has {len(present)}"
            raise _misused("output_names", reason, f"they are {listing(present)}")
        names = dict(zip(present, names, strict=True))
    lists = [field for node in nodes_of(proto) for field in (node.input, node.output)]
    kept = {name for field in lists for name in field} | {value.name for value in proto.graph.input}
    new = [names.get(name, name) for name in present]
    problems = [
        _misused("output_names", f"'{name}' is no output of {model}", did_you_mean(name, present))
        for name in names
        if name not in present
    ]
    problems += [
        _misused("output_names", f"'{name}' is the name of something else in the network, too", "take another")
        for name in dict.fromkeys(new)
        if new.count(name) > 1 or name in kept - set(present)
    ]
    raise_all(problems, stage="convert", file=model)
    for field in lists:
        field[:] = [names.get(name, name) for name in field]
    for value in proto.graph.output:
        value.name = names.get(value.name, value.name)


def _shaped(source: SourceModel, shapes: Mapping[str, Sequence[int]]) -> SourceModel:
    """The model with static shapes of its inputs."""
    ports = input_ports(source, shapes, [port.name for port in source.inputs])
    return replace(source, proto=fix_shapes(source.proto, ports))


PADDLE = Platform(
    "paddle",
    "Paddle model",
    (
        Option("model_dir", "the model's folder", "folder", required=True, aliases=("-m",)),
        Option(
            "model_filename",
            "the network's file in it, like inference.json or inference.pdmodel (default: the only one)",
            metavar="FILE",
            aliases=("-mf",),
        ),
        Option(
            "params_filename",
            "the file of its parameters there (default: the .pdiparams of the same name)",
            metavar="FILE",
            aliases=("-pf",),
        ),
        Option("opset_version", f"the ONNX operator set on the way (default: {_OPSET})", "number", aliases=("-ov",)),
        Option("enable_auto_update_opset", "take a newer operator set where it is needed (default: True)", "boolean"),
        Option("enable_onnx_checker", "have paddle2onnx check what it made (default: True)", "boolean"),
        Option("enable_dist_prim_all", "split combined operators into basic ones (default: False)", "boolean"),
        Option(
            "input_shape_dict",
            "shapes of inputs, in place of --input_shapes, like \"{'image':[1,3,608,608]}\"",
            metavar="DICT",
            aliases=("-isd",),
        ),
        Option(
            "output_names",
            "other names of the outputs, like \"['boxes','scores']\" or \"{'fetch_name_0':'boxes'}\"",
            metavar="NAMES",
            aliases=("-on",),
        ),
        Option("enable_dev_version", "True, for old scripts", "boolean"),
        Option("enable_paddle_fallback", "False, for old scripts", "boolean"),
        Option("external_filename", "refused: no .onnx is kept", metavar="FILE"),
        Option("save_file", "refused: --output_file names the .sim", metavar="FILE", aliases=("-s",)),
    ),
    _load,
    suffixes=(".pdmodel",),
)
