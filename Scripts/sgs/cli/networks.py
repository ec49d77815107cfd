"""A network in whatever file it is, as far as an input_config.ini has to do with it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sgs.cli.options import add_model, add_source_facts, source_values, surgery_of
from sgs.cli.program import Parser
from sgs.compare.source_stage import SourceStage
from sgs.compare.stages import Source, Stage, open_stage
from sgs.config.compare import differences, in_layouts_of, layout_differences
from sgs.config.draft import Terminal
from sgs.config.fit import check_against_names
from sgs.config.input_config import InputConfig, read_input_config
from sgs.config.nearest import counted
from sgs.errors import UserError, gathered
from sgs.frontends.onnx_layout import SourceLayouts
from sgs.frontends.onnx_model import Port
from sgs.frontends.onnx_walk import Layouts
from sgs.frontends.platforms import PLATFORMS, Platform, file_suffixes, platform_of
from sgs.ir import Graph
from sgs.ir.permute import NCHW_TO_NHWC, NHWC_TO_NCHW
from sgs.ops.gather import indexed_entries, only_picks
from sgs.pipelines import Examined, examine, fixed_problems
from sgs.simulation import Port as SimulatorPort
from sgs.simulation import Simulator, is_image

_FREE_DIMS = ("free_dim_param", "free_dim_denotation")
OF_SOURCES = ("input_shapes", "inputs", "outputs", *_FREE_DIMS, "source_layouts", "skip_simplify")


@dataclass(frozen=True)
class Network:
    """What a file tells. Inputs and outputs have the layout that the ini asks for, NHWC where there is none.

    `graph`: the float graph, before or after conversion; `record`: the ini that is in the file. `refusal`: why a source
    model cannot be converted, whatever the ini says; `assumed`: shapes that it leaves open; `left_out`: outputs of its
    that the ini does not name; `agreement`: how far its outputs are from its framework's, if that was asked.
    """

    kind: str
    path: Path
    inputs: tuple[Terminal, ...]
    outputs: tuple[Terminal, ...]
    graph: Graph | None = None
    record: InputConfig | None = None
    refusal: UserError | None = None
    assumed: Mapping[str, Sequence[int]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    agreement: tuple[str, ...] = ()

    def in_its_layouts(self, config: InputConfig) -> InputConfig:
        """An ini with the layouts that the file has, if it has any: a difference there is one problem, not many."""
        return config if self.record is None else in_layouts_of(self.record, config)

    def problems(self, config: InputConfig) -> list[UserError]:
        """Everything in which an ini does not fit the network."""
        inputs, outputs = ({one.name: one.shape for one in side} for side in (self.inputs, self.outputs))
        turned = self.in_its_layouts(config)
        if self.graph is None:
            problems = gathered(lambda: check_against_names(turned, inputs, outputs))
        else:
            problems = fixed_problems(self.graph, turned)
        if self.record is None:
            return problems
        compare = layout_differences if self.graph is not None else differences
        return problems + compare(config, self.record)


@dataclass(frozen=True)
class Chosen:
    """A model to look at. `path` is for messages; without a `platform` it is a .sim or an .img. `values`:
    what the options of the platform say."""

    path: Path
    platform: Platform | None = None
    values: Mapping[str, Any] = field(default_factory=dict)


def kinds() -> str:
    """The endings of the files that are a model."""
    return ", ".join([*file_suffixes(), ".sim", ".img"])


def chosen_file(path: Path, options: argparse.Namespace, *, stage: str) -> Chosen:
    """The model in a file of whatever kind; `options` are those of `add_source_facts`. Raises UserError for a file that
    is none, and for options that do not go with it."""
    platform = platform_of(path, stage=stage)
    if platform is None and path.suffix.lower() not in (".sim", ".img") and not is_image(path, stage=stage):
        remedy = f"models that can be read are {kinds()}; or name the platform first: {', '.join(PLATFORMS)}"
        raise UserError(f"has the extension '{path.suffix}'", stage=stage, file=path, remedy=remedy)
    unfit = OF_SOURCES
    if platform is not None:
        unfit = (*(() if platform.has_free_dims else _FREE_DIMS), *(() if platform.onnx else ("skip_simplify",)))
    for name in unfit:
        if getattr(options, name, None):
            other = "goes with an .onnx" if platform is None else f"does not go with models of {platform.name}"
            raise UserError(f"--{name} {other}", stage=stage, remedy="leave it out")
    return Chosen(path) if platform is None else Chosen(path, platform, {"model_file": path})


def chosen_of(platform: Platform, options: argparse.Namespace) -> Chosen:
    """The model that the options of a platform name."""
    values = source_values(options, platform)
    return Chosen(platform.files(values)[0], platform, values)


def add_stage(parser: Parser, platform: Platform | None) -> None:
    """The options that name a model of any stage for `opened_stage`: -m or those of a platform, and the ini and facts
    that source models need."""
    if platform is None:
        text = f"the model: {kinds()}"
        parser.add_argument("-m", "--model", "--model_file", dest="model", metavar="FILE", required=True, help=text)
        add_source_facts(parser)
    else:
        add_model(parser, platform)
    parser.add_argument("--input_config", metavar="INI", help="of a source model: its input_config.ini")


def opened_stage(platform: Platform | None, options: argparse.Namespace, *, program: str) -> Stage:
    """The stage that the options of `add_stage` name. Raises UserError, also for options that do not go with it."""
    chosen = chosen_of(platform, options) if platform else chosen_file(Path(options.model), options, stage=program)
    if chosen.platform is None:
        if options.input_config is not None:
            reason = "--input_config goes with source models: other files hold it"
            raise UserError(reason, stage=program, file=chosen.path, remedy="leave it out")
        return open_stage(chosen.path)
    config = None if options.input_config is None else read_input_config(Path(options.input_config))
    surgery, layouts = surgery_of(options), options.source_layouts
    source = Source(chosen.platform.name, chosen.values, options.input_shapes, layouts, surgery)
    return open_stage(chosen.path, config=config, source=source, stage=program)


def check_stages(stages: Sequence[Stage], config: InputConfig | None, *, program: str) -> None:
    """Raise UserError for models to look at side by side whose inputs are not as many, and for an ini that none of them
    needs."""
    if config is not None and not any(isinstance(stage, SourceStage) for stage in stages):
        reason = "--input_config is for a source model; others bring their own"
        raise UserError(reason, stage=program, remedy="leave it out")
    first, last = stages[0], stages[-1]
    if len(first.inputs) != len(last.inputs):
        reason = f"has {counted(len(last.inputs), 'input')}, {first.path} has {len(first.inputs)}"
        raise UserError(reason, stage=program, file=last.path, remedy="name two models of one network")


def open_network(chosen: Chosen, config: InputConfig | None, options: argparse.Namespace) -> Network:
    """Read a model; `options` are those of `add_source_facts`. Raises UserError for one that cannot be read."""
    if chosen.platform is None:
        return _of_simulator(Simulator(chosen.path), chosen.path)
    return _of_source(chosen.platform, chosen.values, config, options)


def _of_simulator(simulator: Simulator, path: Path) -> Network:
    kind = {"Float": "float .sim", "Fixed": "fixed .sim", "Offline": "offline .img"}[simulator.kind]
    graph = simulator.graph if simulator.kind == "Float" else None

    def terminal(port: SimulatorPort) -> Terminal:
        straight = graph is not None and only_picks(graph, port.name)
        shape = port.picture_shape or port.shape
        return Terminal(port.name, shape, port.dtype.name.lower(), port.layout, port.entries, straight)

    inputs, outputs = (tuple(map(terminal, side)) for side in (simulator.inputs, simulator.outputs))
    return Network(kind, path, inputs, outputs, graph, simulator.config)


def look_at(
    platform: Platform, values: Mapping[str, Any], config: InputConfig | None, options: argparse.Namespace
) -> Examined:
    """`examine` as the options of `add_source_facts` say."""
    return examine(
        platform.name,
        values,
        config=config,
        input_shapes=options.input_shapes,
        source_layouts=getattr(options, "source_layouts", {}),
        skip_simplify=getattr(options, "skip_simplify", False),
        surgery=surgery_of(options),
    )


def _of_source(
    platform: Platform, values: Mapping[str, Any], config: InputConfig | None, options: argparse.Namespace
) -> Network:
    found = look_at(platform, values, config, options)
    if found.source is None:
        assert found.refusal is not None
        raise found.refusal
    wanted: dict[str, str] = {}
    if config is not None:
        wanted = {i.name: i.layout for i in config.inputs} | {o.name: o.layout for o in config.outputs}
    if found.graph is not None:
        inputs, outputs = _of_graph(found.graph, wanted)
    else:
        inputs, outputs = _as_declared(found, wanted, options.source_layouts)
    left_out = [port.name for port in found.source.outputs if port.name not in {one.name for one in outputs}]
    refusal = found.refusal or found.not_fixed
    agreement = tuple(one.text for one in found.agreement)
    return Network(
        platform.kind,
        found.source.path,
        inputs,
        outputs,
        found.graph,
        refusal=refusal,
        assumed=found.assumed,
        left_out=tuple(left_out),
        agreement=agreement,
    )


def _of_graph(graph: Graph, wanted: Mapping[str, str]) -> tuple[tuple[Terminal, ...], tuple[Terminal, ...]]:
    entries = indexed_entries(graph)

    def terminal(name: str) -> Terminal:
        tensor = graph[name]
        layout = wanted.get(name, "NHWC")
        return Terminal(
            name, tensor.shape, tensor.dtype.name.lower(), layout, entries.get(name, 0), only_picks(graph, name)
        )

    return tuple(map(terminal, graph.inputs)), tuple(map(terminal, graph.outputs))


def _as_declared(
    found: Examined, wanted: Mapping[str, str], overrides: Layouts
) -> tuple[tuple[Terminal, ...], tuple[Terminal, ...]]:
    """Inputs and outputs of a model that does not become a graph; of outputs those that the ini names."""
    assert found.source is not None
    layouts = SourceLayouts(found.source.proto, {**found.source.layouts, **overrides})

    def terminal(port: Port, there: str) -> Terminal:
        here = wanted.get(port.name, "NHWC")
        declared = port.shape or found.assumed.get(port.name)
        shape = tuple(declared or (dim if isinstance(dim, int) else -1 for dim in port.declared))
        if len(shape) == 4 and there != here:
            shape = tuple(shape[axis] for axis in (NCHW_TO_NHWC if there == "NCHW" else NHWC_TO_NCHW))
        return Terminal(port.name, shape, port.dtype, here)

    inputs = tuple(terminal(port, layouts.of_input(port.name)) for port in found.source.inputs)
    kept = [port for port in found.source.outputs if port.name in wanted] or found.source.outputs
    return inputs, tuple(terminal(port, layouts.of_output(port.name)) for port in kept)
