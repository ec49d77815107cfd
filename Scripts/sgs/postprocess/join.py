"""A backbone and the script of a post-processing network → one network, with the ini of the whole."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgs.config.compare import backbone_differences
from sgs.config.fit import mismatch
from sgs.config.input_config import OUTPUT, InputConfig, read_input_config
from sgs.config.nearest import counted, did_you_mean, listing
from sgs.data.user_script import UserScript, kind_of
from sgs.errors import UserError, raise_all
from sgs.ir.graph import Graph, Tensor
from sgs.postprocess.network import Network

STAGE = "postprocess"
PACKAGE = "postprocess"  # builders, which scripts import and users call by name alone
FOLDER = Path(__file__).resolve().parents[2] / PACKAGE


def script_path(name: str) -> Path:
    """The file that --postprocess means: a path, or the bare name of a builder. Raises UserError when there is none."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = sorted(file.stem for file in FOLDER.glob("[!_]*.py"))
    stem = name.removesuffix(".py")
    if stem in shipped:
        return FOLDER / f"{stem}.py"
    reason = "is a folder" if path.is_dir() else "no such post-processing script"
    remedy = f"give the path of a .py file, or one of {listing(shipped)}"
    if path.name == name:
        remedy = did_you_mean(stem, shipped)
    raise UserError(reason, stage=STAGE, file=name or "--postprocess", remedy=remedy)


class PostprocessScript(UserScript):
    """A loaded script: its function gets a `Network`, and returns the outputs of the whole in the order of the ini."""

    stage = STAGE
    function = "postprocess"
    signature = "def postprocess(network)"
    arguments = "the network"

    def __init__(self, path: str | Path) -> None:
        importlib.import_module(PACKAGE)  # first: a script that is called postprocess.py must not be taken for it
        super().__init__(path)

    def bind(self, signature: inspect.Signature) -> None:
        signature.bind(None)

    def __call__(self, network: Network) -> list[Tensor]:
        """The tensors that it returned. Raises UserError."""
        result: Any = self.call("postprocess(network)", network)
        if not isinstance(result, (list, tuple)) or not all(isinstance(part, Tensor) for part in result):
            told = kind_of(result)
            if isinstance(result, (list, tuple)):
                told += " of " + listing(dict.fromkeys(kind_of(part) for part in result))
            raise UserError(
                f"postprocess(network) returned {told}, not a list of tensors of the network",
                stage=STAGE,
                file=self.path,
                remedy="return what the methods of network give, in the order of the ini's outputs",
            )
        return list(result)


@dataclass(frozen=True)
class Postprocess:
    """A script, and the ini of the whole network."""

    script: PostprocessScript
    config: InputConfig


def postprocess_of(script: str | None, ini: str | None, backbone: InputConfig) -> Postprocess | None:
    """What --postprocess and --postprocess_input_config name, for a backbone with such an ini; None for neither.

    Raises UserError for one without the other, for a script or an ini that cannot be used, and for all in which the two
    inis disagree.
    """
    if script is None and ini is None:
        return None
    if script is None or ini is None:
        options = ["--postprocess", "--postprocess_input_config"]
        reason = "{} needs {}".format(*(options if ini is None else options[::-1]))
        raise UserError(reason, stage=STAGE, remedy="the two go together; docs/POSTPROCESS.md says what they hold")
    loaded = PostprocessScript(script_path(script))
    whole = read_input_config(ini)
    raise_all(backbone_differences(whole, backbone), stage=STAGE, file=whole.path)
    return Postprocess(loaded, whole)


def join(graph: Graph, backbone: InputConfig, postprocess: Postprocess) -> None:
    """Put what a script makes behind a backbone, in place, and give the outputs the names of the ini of the whole.

    Raises UserError for a script that fails, or returns something else than the ini has outputs for.
    """
    script, whole = postprocess.script, postprocess.config
    network = Network(graph, backbone)
    results = script(network)
    names = [spec.name for spec in whole.outputs]
    problems = _problems(graph, results, names, whole, script.path)
    raise_all(problems, stage=STAGE, file=script.path)
    graph.outputs = [tensor.name for tensor in results]
    taken = [name for tensor, name in zip(results, names, strict=True) if name != tensor.name and name in graph.tensors]
    if taken:
        reason = f"names of other tensors of the network: {listing(taken)}"
        raise mismatch(whole, OUTPUT, ["outputs"], reason, "choose names that the network does not have")
    for tensor, name in zip(results, names, strict=True):
        graph.rename_tensor(tensor.name, name)


def _problems(
    graph: Graph, results: list[Tensor], names: list[str], whole: InputConfig, script: Path
) -> list[UserError]:
    """What is wrong with the tensors that a script returned for outputs of these names."""
    found = []
    if len(results) != len(names):
        got = ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in results) or "nothing"
        reason = f"names {counted(len(names), 'output')}, {script.name} returns {len(results)}: {got}"
        found.append(mismatch(whole, OUTPUT, ["outputs"], reason, "name what it returns, in that order"))
    made = {id(tensor) for tensor in graph.activations()} - {id(graph[name]) for name in graph.inputs}
    seen: set[int] = set()
    for place, tensor in enumerate(results, start=1):
        reason = ""
        if id(tensor) not in made:
            reason = "is no result of an operator of this network"
        elif id(tensor) in seen:
            reason = "is returned twice"
        seen.add(id(tensor))
        if reason:
            told = f"postprocess(network) returned '{tensor.name}' as output {place}, which {reason}"
            remedy = "return each result of network's methods, or of network.outputs, once"
            found.append(UserError(told, stage=STAGE, file=script, remedy=remedy))
    return found
