"""The modes of torch_calibrator (`config.quant_config.MODES`) as steps on top of the calibrator's levels.

A mode decides like its level, with the precision that it asks for; then, of mixed precision, which sums of products get
the higher one; then it retrains. What a run has so far lies in a folder beside its output: the sensitivities, which
serve other rates too, the best plan, and the state of the retraining, from which the same command goes on.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sgs.config.fit import mismatch
from sgs.config.input_config import CONV, ConvSpec, InputConfig
from sgs.config.quant_config import PRESETS, Mode, QuantConfig
from sgs.data.files import check_output, make_folder, write_result
from sgs.errors import UserError, gathered, raise_all
from sgs.frontends.platforms import require_packages
from sgs.ir import Graph
from sgs.quant.edit import mac_nodes
from sgs.quant.front import AS_GOOD, STEP, TOLERANCE, Front, Point, sizes_of, steps_to
from sgs.quant.gather import Wrap, plain
from sgs.quant.levels import WEIGHTS, Calibration
from sgs.quant.mixed import check_rate, front, given_bits, measure, pinned_bits, with_bits
from sgs.quant.plan import QuantPlan
from sgs.quant.plan_file import plan_text
from sgs.quant.prepare import prepare
from sgs.quant.presets import NO_PRESETS, Presets, presets_for
from sgs.report.mixed import record, table

_log = logging.getLogger(__name__)
STAGE = "q_mode"
SENSITIVITIES, PLAN, BLOCKS = "sensitivities.json", "plan.json", "blocks"  # in the folder of a run
WORTH_RETRAINING = 1.0  # dB that it must gain: on few samples as much is chance
BATCH = 100  # samples that the retraining looks at together


@dataclass(frozen=True)
class ModeOptions:
    """A mode as it is asked for: with the settings of a file, `batch` samples looked at together by the retraining
    (None: BATCH), and `folder`, where a mode that takes long keeps what it has so far (None: nowhere)."""

    mode: Mode
    config: QuantConfig
    batch: int | None = None
    folder: Path | None = None

    @property
    def kept_in(self) -> Path | None:
        """The folder, where the mode has a use for one."""
        return self.folder if self.mode.mixed or self.mode.retrains else None

    def keep(self, plan: QuantPlan, history: Mapping[str, Any]) -> None:
        """Write down a plan that is the best so far."""
        if self.kept_in is not None:
            write_result(make_folder(self.kept_in) / PLAN, plan_text(plan, history).encode())

    def finish(self) -> None:
        """The output is written: of what lies in the folder only the sensitivities are of further use."""
        folder = self.kept_in
        if folder is None or not folder.is_dir():
            return
        shutil.rmtree(folder / BLOCKS, ignore_errors=True)
        (folder / PLAN).unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()


@dataclass(frozen=True)
class Mixed:
    """What mixed precision came to: the choice of the front, whether it is `recommended` or was asked for, and the
    measured output SQNR in dB of its plan before any retraining."""

    front: Front
    chosen: Point
    recommended: bool
    sqnr: float

    def record(self) -> dict[str, Any]:
        """For files: the rates that there are to choose from, and the choice."""
        return {"recommended": self.recommended, **record(self.front, self.chosen, self.sqnr)}

    def told(self) -> str:
        """The same as a table."""
        how = "recommended" if self.recommended else "as asked for"
        return f"{table(self.front, self.chosen, self.sqnr)}\nmp_rate {self.chosen.rate:.4g}, {how}"


@dataclass(frozen=True)
class Decided:
    """A plan, and how mixed precision came to it, if it did."""

    plan: QuantPlan
    mixed: Mixed | None = None


History = Callable[[QuantPlan], dict[str, Any]]  # how a plan came about, for the files that hold it


@dataclass(frozen=True)
class Recipe:
    """How a calibration decides: with the statistics of a `level` of LEVELS, the precisions of `conv` and `presets` as
    given, by `decide`. `record` is what the history of its plans says of it."""

    level: str
    conv: ConvSpec
    decide: Callable[[Calibration, History], Decided]
    record: Mapping[str, Any]
    presets: Presets = NO_PRESETS


def by_mode(
    graph: Graph,
    config: InputConfig,
    options: ModeOptions,
    *,
    wrap: Wrap = plain,
    on_mixed: Callable[[Mixed], None] = lambda mixed: None,
) -> Recipe:
    """The recipe of a mode for a float graph; `on_mixed` hears of mixed precision before any retraining. Raises
    UserError for all that keeps it from being followed; the log says what of the settings has no say."""
    mode, settings = options.mode, options.config
    presets = check_mode(graph, config, options)
    _tell_what_has_no_say(options, config)

    def decide(calibration: Calibration, history: History) -> Decided:
        return _decided(calibration, options, lambda plan: options.keep(plan, history(plan)), wrap, on_mixed)

    record = {"mode": mode.name, "level": mode.level, "quant_config": settings.settings()}
    return Recipe(mode.level, _conv(config, mode), decide, record, presets)


def _conv(config: InputConfig, mode: Mode) -> ConvSpec:
    return replace(config.conv, input_format=mode.input_format or config.conv.input_format)


def check_mode(graph: Graph, config: InputConfig, options: ModeOptions) -> Presets:
    """The presets of a mode, held against a float graph. Raises UserError for everything that keeps the mode from being
    followed, for programs to know before long work."""
    mode, settings, found = options.mode, options.config, list[Presets]()

    def presets() -> None:
        found.append(presets_for(graph, settings.presets if settings.use_presets else (), file=settings.path))
        if mode.mixed is not None and settings.mp_rate is not None:
            prepared = prepare(graph)
            given = given_bits(prepared, _conv(config, mode), found[0])
            if mac_nodes(prepared):
                check_rate(settings.mp_rate, settings.pair(mode), prepared, given)

    def torch() -> None:
        if mode.retrains:
            require_packages(["torch"], "torch", stage=STAGE)
            from sgs.retrain.device import device_of

            device_of(settings.device)

    def precision() -> None:
        given = config.conv.input_format
        if given is not None and mode.input_format not in (None, given):
            reason = f"{given} contradicts mode {mode.name}, which is {mode.input_format}"
            raise mismatch(config, CONV, ["input_format"], reason, "leave it out, or choose another mode")

    def folder() -> None:
        kept_in = options.kept_in
        if kept_in is None or not kept_in.exists():
            return
        if not kept_in.is_dir():
            remedy = "remove it, or name another output"
            raise UserError("is not a folder", stage=STAGE, file=kept_in, remedy=remedy)
        for name in (PLAN, SENSITIVITIES):
            check_output(kept_in / name)

    raise_all(gathered(presets, torch, precision, folder), stage=STAGE)
    return found[0]


def _tell_what_has_no_say(options: ModeOptions, config: InputConfig) -> None:
    mode, settings = options.mode, options.config
    of_mixed = {"mixed_precisions": settings.mixed_precisions, "mp_rate": settings.mp_rate}
    given = [key for key, value in of_mixed.items() if value is not None]
    if given and mode.mixed is None:
        _log.warning("%s in %s: no say in %s, only in Q13 and Q23", " and ".join(given), settings.path, mode.name)
    if settings.presets and not settings.use_presets:
        _log.info("%s in %s: no say, as use_preset_min_max_bit is not 1", PRESETS, settings.path)
    if options.batch is not None and not mode.retrains:
        _log.warning("--cal_batchsize: no say in %s, which does not retrain", mode.name)
    if not mode.retrains:
        _log.info("retrain_iter_num and device: no say in %s, which does not retrain", mode.name)
    if mode.input_format is None and config.conv.input_format is not None:
        _log.warning(
            "input_format=%s in %s decides all precisions, so %s has none to choose",
            config.conv.input_format,
            config.path,
            mode.name,
        )


def _decided(
    calibration: Calibration,
    options: ModeOptions,
    keep: Callable[[QuantPlan], None],
    wrap: Wrap,
    on_mixed: Callable[[Mixed], None],
) -> Decided:
    mode, mixed = options.mode, None
    plan = replace(calibration.run(mode.level), level=mode.name)
    keep(plan)
    if not plan.macs and (mode.mixed is not None or mode.retrains):
        _log.warning("no convolutions or fully connected layers: %s has nothing to mix or to retrain", mode.name)
        return Decided(plan)
    if mode.mixed is not None:
        plan, mixed = _mixed(calibration, plan, options, wrap)
        keep(plan)
        on_mixed(mixed)
    if mode.retrains:
        plan = _retrained(calibration, plan, options, keep, wrap)
    return Decided(plan, mixed)


def _mixed(calibration: Calibration, plan: QuantPlan, options: ModeOptions, wrap: Wrap) -> tuple[QuantPlan, Mixed]:
    pair, rate = options.config.pair(options.mode), options.config.mp_rate
    file = None if options.kept_in is None else options.kept_in / SENSITIVITIES
    sensitivities = measure(calibration, plan, pair, file=file, wrap=wrap)
    choices = front(sensitivities, sizes_of(calibration.network(plan).prepared), pair, pinned_bits(calibration))
    if rate is None:
        return _recommended(calibration, plan, choices)
    chosen = choices.at(rate)
    plan = with_bits(calibration, plan, chosen.bits)
    calibration.note(f"mixed precision at {rate:g}", plan)
    return plan, Mixed(choices, chosen, False, calibration.score(plan))


def _recommended(calibration: Calibration, plan: QuantPlan, choices: Front) -> tuple[QuantPlan, Mixed]:
    """The least rate, in steps of STEP, at which little is measured to be lost: by bisection, from the rate at which
    that is expected."""
    best = choices.at(choices.highest)
    found = with_bits(calibration, plan, best.bits)
    calibration.note("all in the higher precision", found)
    limit = max(TOLERANCE, AS_GOOD * _error(calibration.score(found)))
    low, high = steps_to(choices.lowest) - 1, steps_to(choices.highest)
    tried = min(round(choices.recommended_rate() / STEP), high - 1)
    while low < tried:
        chosen = choices.at(tried * STEP)
        trial = with_bits(calibration, plan, chosen.bits)
        kept = _error(calibration.score(trial)) <= limit
        calibration.note(f"mixed precision at {tried * STEP:.2f}", trial, kept=kept)
        if kept:
            best, found, high = chosen, trial, tried
        else:
            low = tried
        tried = (low + high) // 2
    return found, Mixed(choices, best, True, calibration.score(found))


def _error(sqnr: float) -> float:
    """Relative error energy of so many dB."""
    return float(10 ** (-sqnr / 10))


def _retrained(
    calibration: Calibration, plan: QuantPlan, options: ModeOptions, keep: Callable[[QuantPlan], None], wrap: Wrap
) -> QuantPlan:
    """The plan, or with its weights and biases retrained, or with what codes stand for as well: of these, with biases
    corrected or not, the one with the nearest outputs."""
    if all(mac.bits == 16 for mac in plan.macs.values()):
        _log.warning("all convolutions are in 16 bit, where retraining has nothing to gain: none is done")
        return plan
    from sgs.retrain.run import retrained
    from sgs.retrain.settings import Settings

    mode, presets = options.mode, calibration.presets
    settings = Settings(
        iterations=options.config.retrain_iter_num,
        device=options.config.device,
        batch=options.batch or BATCH,
        pinned=frozenset([*presets.spans, *(f"{name}/weight" for name in presets.bounds)]),
        folder=None if options.kept_in is None else options.kept_in / BLOCKS,
        wrap=wrap,
    )
    if mode.mixed is not None:  # else the level has done so
        plan = calibration.better_of_two(WEIGHTS, plan, calibration.with_weights(plan))
    best = plan
    for title, scales in (("retraining", False), ("retraining with scales", True)):
        trial = presets.held(retrained(calibration, plan, replace(settings, scales=scales)))
        best = calibration.better_of_two(title, best, calibration.with_best_biases(trial), worth=WORTH_RETRAINING)
        keep(best)
    return best
