"""The whole product on one page: convert, calibrate, compile. Steps take and give values; `cli` handles files."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from sgs.compile import compile_graph
from sgs.config.chips import Chip
from sgs.config.fit import mismatch, name_problems, shape_problems
from sgs.config.formats import InputSpec, OutputSpec
from sgs.config.input_config import INPUT, InputConfig, read_input_config
from sgs.config.input_config import STAGE as INI
from sgs.config.nearest import did_you_mean, listing
from sgs.config.quant_config import PRESETS, QuantConfig, read_quant_config
from sgs.data.feed import Fed, float_inputs, normalisation_mismatch, number_mismatch, plain_inputs
from sgs.data.images import Sample
from sgs.data.preprocess import Preprocessor
from sgs.data.shards import Pool
from sgs.data.stored import stored
from sgs.errors import UnsupportedOperator, UserError, gathered, raise_all
from sgs.evaluate.agreement import Agreement, compare
from sgs.frontends.onnx_import import import_model
from sgs.frontends.onnx_model import Shape, SourceModel, assumed_shapes
from sgs.frontends.onnx_surgery import NO_SURGERY, Surgery, operate
from sgs.frontends.onnx_walk import Layouts
from sgs.frontends.platforms import Asked, platform_named
from sgs.img import Image
from sgs.ir import Graph
from sgs.modes import Decided, History, Mixed, ModeOptions, Recipe, by_mode, check_mode
from sgs.ops.gather import indexed_entries
from sgs.passes.explain_layout import explain_layout
from sgs.passes.pipeline import optimise
from sgs.postprocess.join import Postprocess, join
from sgs.quant.boundary import attach
from sgs.quant.boxes import run_for_boxes
from sgs.quant.edit import build_fixed, byte_params
from sgs.quant.equalise import channel_scales
from sgs.quant.export import SCALES_KEY
from sgs.quant.finite import first_not_finite
from sgs.quant.forced import forced_problems
from sgs.quant.gather import Feeds, FloatFeeds, Wrap, gather, loading_processes, plain
from sgs.quant.layers import SAMPLES, Layer, describe_layers, gains_of, measured
from sgs.quant.levels import (
    KEPT_SAMPLES,
    L1_SAMPLES,
    LEVELS,
    MAX_INT16_MACS,
    THRESHOLD,
    Calibration,
    Step,
    searched_tensors,
)
from sgs.quant.observe import NotFinite
from sgs.quant.parameters import (
    METADATA_KEY,
    QuantParameter,
    check_parameters,
    parse_parameters,
    read_parameters,
    recorded,
    scales_of,
    unused,
    with_parameters,
)
from sgs.quant.plan import QuantPlan, TensorRange
from sgs.quant.plan_file import STAGE as PLAN
from sgs.quant.plan_file import fingerprint, network_of, parse_plan, plan_text
from sgs.quant.ports import port_problems, ports_of, table_problems
from sgs.quant.prepare import prepare
from sgs.quant.ranges import pixel_range
from sgs.quant.statistics import Statistics
from sgs.quant.statistics_file import Checkpoint, Origin, fitting_statistics
from sgs.quant.traps import NORMALISATION, NOT_FINITE, Evidence, Finding, find_traps, summary
from sgs.quant.unrounded import rounding_parameters, unrounded
from sgs.registry import OPERATOR
from sgs.report.calibration import record as calibration_record
from sgs.report.compile import CompileReport, csv_text, describe_image, json_text
from sgs.report.compile_page import page_text
from sgs.report.compile_trace import trace_text

_log = logging.getLogger(__name__)
Item = TypeVar("Item")


# -- convert -----------------------------------------------------------------------------------------------------------
def convert(
    platform: str,
    values: Mapping[str, Any],
    config: InputConfig,
    *,
    input_shapes: Sequence[Sequence[int]] | None = None,
    source_layouts: Layouts | None = None,
    skip_simplify: bool = False,
    force_simplify: bool = False,
    surgery: Surgery = NO_SURGERY,
    postprocess: Postprocess | None = None,
    on_agreement: Callable[[Agreement], None] = lambda found: None,
) -> tuple[Graph, Graph]:
    """(untouched import, optimised float graph) of a model, or of the part of it that `surgery` means, inputs and
    outputs in the order of the ini, `postprocess` behind it. The log says why Transposes are left.

    `values`: what the options of the platform say (see `frontends.platforms`), {"model_file": Path} for most;
    `skip_simplify` and `force_simplify` as in `import_model`, for what becomes ONNX on the way. Raises UserError for a
    model that cannot be used, or for all in which the ini does not go with it. Where the source brings a judge,
    `on_agreement` hears how far each output is from its.
    """
    row = platform_named(platform, stage="convert")
    layouts = source_layouts or {}
    read = row.load(row.complete(values), asked(config, input_shapes, surgery))
    transposes = [node for node in read.proto.graph.node if node.op_type.upper() == "TRANSPOSE"]
    written = {node.name or next(iter(node.output), "") for node in transposes}
    surgery = NO_SURGERY if row.takes_surgery else surgery
    _check_source_names(read, config, layouts, surgery)
    imported = import_model(
        read,
        input_shapes=None if row.takes_shapes else input_shapes,
        input_names=[spec.name for spec in config.inputs],
        output_names=[spec.name for spec in config.outputs],
        input_layouts=_layouts(config.inputs),
        output_layouts=_layouts(config.outputs),
        source_layouts=layouts,
        skip_simplify=skip_simplify,
        force_simplify=force_simplify,
        surgery=surgery,
    )
    check_source_layouts(layouts, imported, read.path)
    graph = _optimised(imported, config)
    if read.judge is not None:
        for found in compare(graph, read, _layouts([*config.inputs, *config.outputs]), layouts):
            on_agreement(found)
    if postprocess is not None:
        join(imported, config, postprocess)
        graph = _optimised(imported, postprocess.config)
    own = rounding_parameters(graph)
    if own:
        _log.info("the network is quantised already: its ranges of %d tensors are kept", len(own))
        graph.metadata[METADATA_KEY] = recorded(own)
    for line in explain_layout(imported, graph, written) if _log.isEnabledFor(logging.INFO) else ():
        _log.info("%s", line)
    return imported, graph


def _optimised(imported: Graph, config: InputConfig) -> Graph:
    """The float graph of an import, both with their ini. Raises UserError for everything in which that does not fit."""
    imported.metadata["config"] = config.text
    graph = imported.copy()
    optimise(graph)
    raise_all(config_problems(graph, config), stage=INI, file=config.path)
    return graph


def asked(config: InputConfig | None, shapes: Sequence[Sequence[int]] | None, surgery: Surgery) -> Asked:
    """What a frontend is told of an ini, --input_shapes and the part of the model that is meant."""
    given = None if shapes is None else tuple(map(tuple, shapes))
    if config is None:
        return Asked(shapes=given, surgery=surgery)
    inputs, outputs = (tuple(spec.name for spec in specs) for specs in (config.inputs, config.outputs))
    return Asked(inputs, outputs, given, surgery)


def _check_source_names(source: SourceModel, config: InputConfig, source_layouts: Layouts, surgery: Surgery) -> None:
    """Raise UserError where the ini names other inputs or outputs than a model, and where there is a graph of the
    model's own names, with all else in which the ini does not go with it."""
    part = operate(source, surgery)
    inputs, outputs = ([port.name for port in side] for side in (part.inputs, part.outputs))
    inner = {name for node in source.proto.graph.node for name in node.output}
    problems = name_problems(config, inputs, outputs, inner=inner, all_outputs=False)
    if not problems:
        return
    found = _examined(
        source, config, input_shapes=None, source_layouts=source_layouts, skip_simplify=True, surgery=surgery
    )
    if found.graph is not None:
        problems += _beyond_names(found.graph, config, shapes=not found.assumed)
    raise_all(problems, stage=INI, file=config.path)


def check_source_layouts(layouts: Layouts, graph: Graph, file: Path) -> None:
    """Raise UserError for layouts of what is neither input nor output of an imported graph."""
    known = [*graph.inputs, *graph.outputs]
    problems = [
        UserError(
            f"'{name}' is no input or output", stage="source_layouts", file=file, remedy=did_you_mean(name, known)
        )
        for name in layouts
        if name not in known
    ]
    raise_all(problems, stage="source_layouts", file=file)


@dataclass(frozen=True)
class Examined:
    """What stands in the way of a source model: `refusal` is what convert would refuse, `not_fixed` what calibrate
    would of the float graph. `assumed`: the shapes of the inputs that the model leaves open. `source`: the part of the
    model that is meant, None where it cannot be read; `graph`: the optimised float graph, None where there is none;
    `agreement`: with the judge that the source brings, if it does."""

    assumed: Mapping[str, Shape]
    refusal: UserError | None
    not_fixed: UserError | None = None
    source: SourceModel | None = None
    graph: Graph | None = None
    agreement: Sequence[Agreement] = ()


def examine(
    platform: str,
    values: Mapping[str, Any],
    *,
    config: InputConfig | None = None,
    input_shapes: Sequence[Sequence[int]] | None = None,
    source_layouts: Layouts | None = None,
    skip_simplify: bool = False,
    surgery: Surgery = NO_SURGERY,
) -> Examined:
    """Try a model, which is named as for `convert`, with shapes assumed where neither it nor the caller says any; of an
    ini the layouts count, and the names that are the model's, as far as they are.

    Raises UserError for shapes and dimensions that are not those of the model.
    """
    row = platform_named(platform, stage="convert")
    try:
        source = row.load(row.complete(values), asked(config, input_shapes, surgery))
    except UserError as error:
        return Examined({}, error)
    return _examined(
        source,
        config,
        input_shapes=None if row.takes_shapes else input_shapes,
        source_layouts=source_layouts,
        skip_simplify=skip_simplify,
        surgery=NO_SURGERY if row.takes_surgery else surgery,
    )


def _examined(
    source: SourceModel,
    config: InputConfig | None,
    *,
    input_shapes: Sequence[Sequence[int]] | None,
    source_layouts: Layouts | None,
    skip_simplify: bool,
    surgery: Surgery,
) -> Examined:
    """`examine` of a model that could be read."""
    assumed: dict[str, Shape] = {}
    part = operate(source, surgery)
    if input_shapes is None:
        shapes = assumed_shapes(part.inputs)
        assumed = {port.name: shapes[port.name] for port in part.inputs if port.shape is None}
    inputs, outputs = _names_of(config, part)
    try:
        graph = import_model(
            source,
            input_shapes=input_shapes or assumed,
            input_names=inputs,
            output_names=outputs,
            input_layouts={} if config is None else _layouts(config.inputs),
            output_layouts={} if config is None else _layouts(config.outputs),
            source_layouts=source_layouts,
            skip_simplify=skip_simplify,
            surgery=surgery,
        )
    except UserError as error:
        return Examined(assumed, error, source=part)
    check_source_layouts(source_layouts or {}, graph, source.path)
    optimise(graph)
    try:
        turned = {} if config is None else _layouts([*config.inputs, *config.outputs])
        agreement = [] if source.judge is None else compare(graph, source, turned, source_layouts or {})
    except UserError as error:
        return Examined(assumed, error, None, part, graph)
    try:
        check_operators(graph)
    except UserError as error:
        return Examined(assumed, None, error, part, graph, agreement)
    return Examined(assumed, None, None, part, graph, agreement)


def _names_of(config: InputConfig | None, source: SourceModel) -> tuple[list[str] | None, list[str] | None]:
    """(inputs, outputs) as an ini orders them, None where these are not the model's: it may leave outputs out."""
    if config is None:
        return None, None
    inputs, outputs = ([spec.name for spec in specs] for specs in (config.inputs, config.outputs))
    fits = set(inputs) == {port.name for port in source.inputs}
    return inputs if fits else None, outputs if set(outputs) <= {port.name for port in source.outputs} else None


def _layouts(specs: Sequence[InputSpec | OutputSpec]) -> Layouts:
    return cast(Layouts, {spec.name: spec.layout for spec in specs})


def import_parameters(graph: Graph, path: Path) -> None:
    """Put the quantisation parameters of a file into a float graph's metadata, where calibration finds them.

    Raises UserError listing all that is wrong with the file, or does not fit the graph.
    """
    parameters = read_parameters(path)
    check_parameters(parameters, unrounded(graph), file=path)
    if METADATA_KEY in graph.metadata:
        _log.warning("quantisation parameters: those of %s replace those in the float .sim", path)
    graph.metadata[METADATA_KEY] = recorded(parameters)


def config_problems(graph: Graph, config: InputConfig) -> list[UserError]:
    """Everything in which an ini does not go with a float graph: what convert and calibrate refuse, and what
    check_input_config lists."""
    return [*name_problems(config, graph.inputs, graph.outputs), *_beyond_names(graph, config)]


def fixed_problems(graph: Graph, config: InputConfig) -> list[UserError]:
    """`config_problems`, and tables that keep a graph from becoming fixed, which convert lets pass."""
    return [*config_problems(graph, config), *table_problems(unrounded(graph), config)]


def _beyond_names(graph: Graph, config: InputConfig, *, shapes: bool = True) -> list[UserError]:
    """`config_problems` of the inputs and outputs that an ini and a graph both have, and of its convolutions; without
    `shapes` none that come of these."""
    inputs, outputs = ({name: graph[name].shape for name in names} for names in (graph.inputs, graph.outputs))
    plain = unrounded(graph)
    return [
        *(shape_problems(config, inputs, outputs) if shapes else []),
        *port_problems(plain, config),
        *forced_problems(prepare(plain), config),
    ]


def check_operators(graph: Graph) -> None:
    """Raise UserError naming every node of a float graph that has no integer form."""
    problems: list[UserError] = [
        UnsupportedOperator(
            f"the operator {reason}, so the network cannot become fixed",
            stage="calibrate",
            node=node.label,
            remedy="cut the network before this node with ConvertTool's --outputs, and do the rest outside",
        )
        for node in prepare(graph).nodes
        if node.op in OPERATOR and (reason := OPERATOR[node.op].no_integers)
    ]
    raise_all(problems, stage="calibrate")


# -- calibrate ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class CalibrationOptions:
    """`level` of LEVELS; `threshold` and `max_int16_macs` for promotion to 16 bit (see `quant.levels.Calibration`),
    None: as usual, and at L5 as much more as a detector's boxes need (see `quant.boxes`); `processes` at most; with
    `memory_saving` one sample is looked at at a time, and half as many are kept for judging; `all_statistics` takes
    histograms even where the level has no use for them; `all_errors` measures those of the layers even where the level
    has no use for such work. `quant_parameters` go before those in the float graph's metadata; where there are any, the
    rest is decided as at L1. A `mode` decides in place of all that is said for levels, and of quantisation parameters.
    """

    level: str = "L5"
    threshold: float | None = None
    max_int16_macs: float | None = None
    processes: int = 10
    memory_saving: bool = False
    all_statistics: bool = False
    all_errors: bool = False
    quant_parameters: tuple[QuantParameter, ...] = ()
    mode: ModeOptions | None = None


@dataclass(frozen=True)
class Calibrated:
    """A fixed graph with its boundary, the plan behind it, what each step of the level gained, the traps that were met,
    and the layers, their errors measured from L3 on.
    """

    graph: Graph
    plan: QuantPlan
    statistics: Statistics
    steps: tuple[Step, ...]
    findings: tuple[Finding, ...] = ()
    layers: tuple[Layer, ...] = ()


def calibrate(
    float_graph: Graph,
    config: InputConfig,
    preprocessors: Sequence[Preprocessor],
    samples: Sequence[Sample],
    options: CalibrationOptions,
    *,
    statistics: Statistics | None = None,
    checkpoint: Checkpoint | None = None,
    pool: Pool | None = None,
    wrap: Wrap = plain,
    on_step: Callable[[Step], None] = lambda step: None,
    on_mixed: Callable[[Mixed], None] = lambda mixed: None,
) -> Calibrated:
    """Float graph → fixed graph by calibration on `samples`, which the scripts make arrays of. The rest as in
    `calibrate_on`.

    Raises UserError for inputs that do not fit together.
    """
    float_graph = calibratable(float_graph, config)
    if not samples:
        raise UserError("there are no calibration samples", stage="calibrate")
    inputs = {name: float_graph[name] for name in float_graph.inputs}
    check_normalisation(config, preprocessors, samples[0], inputs)
    feeds = FloatFeeds(config, tuple(preprocessors), inputs, indexed_entries(float_graph))
    return calibrate_on(
        float_graph,
        config,
        feeds,
        samples,
        options,
        statistics=statistics,
        checkpoint=checkpoint,
        pool=pool,
        wrap=wrap,
        on_step=on_step,
        on_mixed=on_mixed,
    )


def calibratable(float_graph: Graph, config: InputConfig) -> Graph:
    """The float graph as calibration takes it. Raises UserError where it cannot become fixed, or does not go with the
    ini."""
    graph = unrounded(float_graph)
    unfit = fixed_problems(graph, config)
    stage, file = (INI, config.path) if unfit else ("calibrate", None)
    raise_all([*gathered(lambda: check_operators(graph)), *unfit], stage=stage, file=file)
    return graph


def check_calibration(float_graph: Graph, config: InputConfig, options: CalibrationOptions) -> None:
    """Raise UserError where a float graph cannot become fixed, does not go with the ini, or both not with the mode."""
    graph = calibratable(float_graph, config)
    if options.mode is not None:
        check_mode(graph, config, options.mode)


def calibrate_on(
    float_graph: Graph,
    config: InputConfig,
    feeds: Feeds,
    samples: Sequence[Sample],
    options: CalibrationOptions,
    *,
    statistics: Statistics | None = None,
    checkpoint: Checkpoint | None = None,
    pool: Pool | None = None,
    wrap: Wrap = plain,
    on_step: Callable[[Step], None] = lambda step: None,
    on_mixed: Callable[[Mixed], None] = lambda mixed: None,
) -> Calibrated:
    """Float graph, as `calibratable` gives it, → fixed graph by calibration on what `feeds` loads for `samples`, with
    `statistics` that are known already (see `read_statistics`) or those of the samples; `checkpoint` keeps these while
    they are gathered, in this process or others of this machine, or by a `pool` that is given.

    Raises UserError for inputs that do not fit together.
    """
    recipe = recipe_for(float_graph, config, options, wrap=wrap, on_mixed=on_mixed)
    level = recipe.level
    if statistics is None:
        statistics = statistics_of(
            float_graph, feeds, samples, level, options, wrap=wrap, checkpoint=checkpoint, pool=pool
        )
    kept = stored(feeds.load(spread(samples, KEPT_SAMPLES // 2 if options.memory_saving else KEPT_SAMPLES)))
    calibration = Calibration(
        float_graph,
        statistics,
        spread(kept, L1_SAMPLES) if level == "L1" else kept,
        recipe.conv,
        threshold=THRESHOLD if options.threshold is None else options.threshold,
        max_int16_macs=MAX_INT16_MACS if options.max_int16_macs is None else options.max_int16_macs,
        ports=ports_of(config, float_graph),
        pixels=ranges_of_pixels(config),
        presets=recipe.presets,
        on_step=on_step,
    )

    def history(plan: QuantPlan) -> dict[str, Any]:
        return {
            "level": level,
            "samples": len(samples),
            "sensitivity_threshold": calibration.threshold,
            "max_int16_macs": calibration.max_int16_macs,
            "memory_saving": options.memory_saving,
            "steps": [{**asdict(step), "sqnr": round(step.sqnr, 6)} for step in calibration.steps],
            "bits16": bits16(plan),
            **recipe.record,
        }

    decided = recipe.decide(calibration, history)
    plan = decided.plan
    core = calibration.fixed(plan)
    findings = find_traps(Evidence(calibration.prepared, statistics, plan, core, kept, config))
    for line in summary(findings):
        _log.warning("%s", line)
    if left := recipe.presets.not_followed(float_graph, core, calibration.ports.fed_bytes):
        _log.warning("presets that are not used as they stand: %s", listing(left))
    complete = options.all_errors or LEVELS.index(level) >= 2
    layers = layers_of(calibration, plan, core, errors=complete, gains=options.all_errors)
    record = {**history(plan), **({} if decided.mixed is None else {"mixed": decided.mixed.record()})}
    graph = finished(core, calibration.network(plan).prepared, config, plan, record)
    return Calibrated(graph, plan, statistics, tuple(calibration.steps), findings, layers)


def recipe_for(
    float_graph: Graph,
    config: InputConfig,
    options: CalibrationOptions,
    *,
    wrap: Wrap = plain,
    on_mixed: Callable[[Mixed], None] = lambda mixed: None,
) -> Recipe:
    """How a float graph's plan is decided: by a mode, or by a level, beside quantisation parameters by L1. Raises
    UserError for options that do not go with it; the log tells those that have no say."""
    if options.mode is not None:
        if options.quant_parameters or METADATA_KEY in float_graph.metadata:
            _log.warning("quantisation parameters have no say beside a mode, only %s", PRESETS)
        return by_mode(float_graph, config, options.mode, wrap=wrap, on_mixed=on_mixed)
    parameters = parameters_for(float_graph, options)
    level = "L1" if parameters else options.level
    warn_of_pointless_level(level, config)
    warn_of_promotion(level, options)

    record: dict[str, Any] = {"imported": len(parameters)} if parameters else {}

    def decide(calibration: Calibration, history: History) -> Decided:
        if level == "L5" and options.threshold is None and options.max_int16_macs is None:
            plan, boxes = run_for_boxes(calibration, level)
            record.update({} if boxes is None else {"boxes": str(boxes)})
        else:
            plan = calibration.run(level)
        return Decided(follow_parameters(calibration, plan, parameters) if parameters else plan)

    return Recipe(level, config.conv, decide, record)


def statistics_of(
    graph: Graph,
    feeds: Feeds,
    samples: Sequence[Sample],
    level: str,
    options: CalibrationOptions,
    *,
    wrap: Wrap,
    checkpoint: Checkpoint | None,
    pool: Pool | None,
) -> Statistics:
    """What a level wants to know of a float graph's activations. Raises UserError naming the sample and the node where
    values stop being finite.
    """
    prepared = prepare(graph)
    complete = options.all_statistics or LEVELS.index(level) >= 2
    local = pool is None and not options.memory_saving
    try:
        return gather(
            graph,
            feeds,
            samples,
            searched_tensors(prepared) if complete else [],
            scales=partial(channel_scales, prepared),
            processes=loading_processes(options.processes, feeds, samples) if local else 1,
            pool=pool,
            one_at_a_time=options.memory_saving,
            wrap=wrap,
            checkpoint=checkpoint,
        )
    except NotFinite as error:
        raise located(error, graph, feeds, samples) from error


def located(error: NotFinite, graph: Graph, feeds: Feeds, samples: Sequence[Sample]) -> UserError:
    """The error with the sample and the node where values stop being finite."""
    found = first_not_finite(graph, feeds.load(samples))
    if found is None:  # of no single operator: a sum over many values was infinite
        return error
    index, tensor, node = found
    reason = f"the float network gives {NOT_FINITE}, first in tensor '{tensor}'"
    file = feeds.told(samples[index])
    return UserError(reason, stage="calibrate", file=file, node=node.label, remedy=error.remedy)


def layers_of(
    calibration: Calibration, plan: QuantPlan, core: Graph, *, errors: bool, gains: bool
) -> tuple[Layer, ...]:
    """The layers of a plan's fixed graph, with their `errors` measured or not; what 16 bit would gain is measured with
    `gains`, else it is what promotion to 16 bit found, if there was any.
    """
    found = calibration.measure_sensitivities(plan) if gains else calibration.sensitivities
    narrow = {name: error for name, error in found.items() if plan.macs[name].bits == 8}
    graph = calibration.network(plan).graph
    layers = describe_layers(graph, core, plan, gains_of(narrow))
    return tuple(measured(layers, graph, core, calibration.judges[:SAMPLES], plan.scales) if errors else layers)


def read_statistics(path: Path, graph: Graph, origin: Origin) -> tuple[Statistics, Origin]:
    """Statistics of a file, which must be of `origin` and hold all that any level may want of a float graph, and what
    they are of (perhaps more samples). Raises UserError."""
    prepared = prepare(unrounded(graph))
    return fitting_statistics(path, origin, prepared, searched_tensors(prepared))


def parameters_for(graph: Graph, options: CalibrationOptions) -> tuple[QuantParameter, ...]:
    """The parameters to import, which fit the float graph, or none. Says what they leave of the options."""
    parameters = options.quant_parameters
    if not parameters and METADATA_KEY in graph.metadata:
        parameters = parse_parameters(graph.metadata[METADATA_KEY], file=f"metadata sgs.{METADATA_KEY}")
    if parameters:
        check_parameters(parameters, graph)
        if options.level != "L1":
            _log.warning("quantisation parameters: what they leave open is decided as at L1, not %s", options.level)
    return parameters


def follow_parameters(calibration: Calibration, plan: QuantPlan, parameters: Sequence[QuantParameter]) -> QuantPlan:
    """The plan with the parameters followed, whatever they gain. Names those that could not be followed as they
    stand.
    """
    scales = scales_of(parameters)
    plan = calibration.initial_plan(scales) if scales else plan
    graph = calibration.network(plan).graph
    plan = with_parameters(plan, graph, parameters)
    left = unused(parameters, graph, calibration.fixed(plan), calibration.ports.fed_bytes)
    if left:
        _log.warning("quantisation parameters that are not used as they stand: %s", listing(left))
    calibration.note("imported parameters", plan)
    return plan


def bits16(plan: QuantPlan) -> list[str]:
    """Sums of products in 16 bits."""
    return [name for name, mac in plan.macs.items() if mac.bits == 16]


def apply_plan(
    float_graph: Graph, config: InputConfig, plan: QuantPlan, record: Mapping[str, Any], *, file: object | None = None
) -> Graph:
    """Float graph → fixed graph as a plan says, nothing measured. `record` is how the plan came about, for the file.

    Raises UserError for a plan (read from `file`) or an ini that does not fit the network.
    """
    float_graph = calibratable(float_graph, config)
    prepared = network_of(plan, float_graph, file=file)
    if METADATA_KEY in float_graph.metadata:
        _log.warning("quantisation parameters in the float .sim have no say beside a plan")
    core = build_fixed(prepared, plan, ports_of(config, prepared))
    return finished(core, prepared, config, plan, record)


def finished(core: Graph, prepared: Graph, config: InputConfig, plan: QuantPlan, record: Mapping[str, Any]) -> Graph:
    """The integer graph of a plan for a `prepared` one with its boundary, and metadata that say how it came about."""
    graph = attach(core, config, byte_params(prepared, plan, ports_of(config, prepared)))
    graph.metadata.pop(METADATA_KEY, None)
    graph.metadata["config"] = config.text
    graph.metadata["calibration"] = dict(record)
    if plan.scales:
        graph.metadata[SCALES_KEY] = {name: scale.tolist() for name, scale in plan.scales.items()}
    return graph


def warn_of_promotion(level: str, options: CalibrationOptions) -> None:
    """Say that what is set for promotion to 16 bit has no say below the levels that promote."""
    given = ["--sensitivity_threshold"] if options.threshold is not None else []
    given += ["--max_int16_macs"] if options.max_int16_macs is not None else []
    if LEVELS.index(level) < 3 and given:
        _log.warning("%s: no say at %s, only from L4 on", " and ".join(given), level)


def warn_of_pointless_level(level: str, config: InputConfig) -> None:
    """Say that levels above L2 gain nothing where all convolutions are forced to 16 bit."""
    if config.conv.input_format == "ALL_INT16" and LEVELS.index(level) > 1:
        _log.warning(
            "input_format=ALL_INT16 in %s: levels above L2 search 8-bit ranges, of which there are none", config.path
        )


def ranges_of_pixels(config: InputConfig) -> dict[str, TensorRange]:
    """Ranges of pictures whose codes follow from mean and std alone."""
    found = {spec.name: pixel_range(spec.mean, spec.std) for spec in config.inputs}
    return {name: span for name, span in found.items() if span is not None}


def spread(samples: Sequence[Item], count: int) -> list[Item]:
    """At most `count` samples, evenly spread over the list."""
    if len(samples) <= count:
        return list(samples)
    return [samples[i * len(samples) // count] for i in range(count)]


def check_normalisation(
    config: InputConfig, preprocessors: Sequence[Preprocessor], sample: Sample, inputs: Mapping[str, Fed]
) -> None:
    """Raise UserError when the mean and std of the ini are not what the preprocess script does, or when it changes
    numbers that are fed as they are."""
    floats = float_inputs(config, preprocessors, sample, inputs)
    plain = plain_inputs(config, preprocessors, sample, inputs)
    problems = []
    for spec, script in zip(config.inputs, preprocessors, strict=True):
        if found := normalisation_mismatch(spec, plain[spec.name], floats[spec.name]):
            reason = f"{NORMALISATION}: '{spec.name}': {found}"
            remedy = "make [INPUT_CONFIG] mean and std_value say what the script does with norm=True"
            problems.append(mismatch(config, INPUT, ["mean", "mean_red", "std_value"], reason, remedy))
        if found := number_mismatch(spec, plain[spec.name], floats[spec.name]):
            reason = f"does not return the same numbers: {found}"
            remedy = f"with {spec.input_format} it returns the data themselves in both cases"
            where = f"input '{spec.name}'"
            problems.append(UserError(reason, stage="preprocess", file=script.path, node=where, remedy=remedy))
    raise_all(problems, stage="calibrate")


# -- compile -----------------------------------------------------------------------------------------------------------
def compile_fixed(
    graph: Graph,
    chip: Chip,
    *,
    batch_mode: str = "n_buf",
    batches: Sequence[int] = (1,),
    category: str = "Unknown",
    inplace_inputs: bool = False,
) -> Image:
    """Fixed graph → offline image for a chip. Raises UserError for operators or sizes that the chip does not take."""
    return compile_graph(
        graph,
        chip,
        batch_mode=batch_mode,
        batches=tuple(batches),
        category=category,
        inplace_inputs=inplace_inputs,
    )


def compile_report(
    image: Image, chip: Chip, image_bytes: int, page: Callable[[Image, CompileReport], str] = page_text
) -> tuple[str, str, str, str]:
    """What an image with a file of `image_bytes` will cost on its chip: (JSON, CSV, HTML page, trace) as text; `page`
    makes the page, which may tell more."""
    report = describe_image(image, chip, image_bytes)
    return json_text(report), csv_text(report), page(image, report), trace_text(image, chip)


# -- configuration -----------------------------------------------------------------------------------------------------
def load_config(path: Path) -> InputConfig:
    """The ini, validated."""
    return read_input_config(path)


def load_quant_config(path: Path) -> QuantConfig:
    """The settings of a mode, validated."""
    return read_quant_config(path)


def plan_record(calibrated: Calibrated) -> str:
    """The plan and how it came about as JSON text."""
    return plan_text(calibrated.plan, calibrated.graph.metadata["calibration"])


def layer_record(calibrated: Calibrated) -> str:
    """The layers, the traps that were met and how the plan came about as JSON text."""
    history = calibrated.graph.metadata["calibration"]
    return calibration_record(calibrated.layers, calibrated.findings, calibrated.graph.outputs, history)


def read_plan(path: Path) -> tuple[QuantPlan, dict[str, Any]]:
    """(plan, how it came about) of a file that `plan_record` made, and that may have been edited since.

    Raises UserError for a file that cannot be read, and one that lists all its faults.
    """
    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(error.strerror or str(error), stage=PLAN, file=path) from error
    except (ValueError, RecursionError) as error:
        remedy = "name a file that calibrator.py --save_quant_info wrote"
        raise UserError(f"is not a plan in JSON: {error}", stage=PLAN, file=path, remedy=remedy) from error
    extra = {key: record.pop(key, None) for key in ("calibration", "fingerprint")} if isinstance(record, dict) else {}
    plan = parse_plan(record, file=path)
    history = extra["calibration"] if isinstance(extra["calibration"], dict) else {}
    if extra["fingerprint"] != fingerprint(plan):  # what was measured then says nothing of it any more
        history.pop("boxes", None)
        history = {**history, "level": plan.level, "steps": [], "bits16": bits16(plan), "edited": True}
    return plan, history
