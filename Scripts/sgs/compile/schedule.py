"""Groups of layers → steps, and when each of their loads may be issued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sgs.compile.cascade import Bands, Cascade
from sgs.compile.cascade_steps import CascadeSteps
from sgs.compile.layer_steps import LayerSteps
from sgs.compile.live import Storage
from sgs.compile.memory import Memory
from sgs.compile.program import Buffer, Spot, Step, Transfer
from sgs.compile.tiling import Tiling

Way = Tiling | tuple[Cascade, Bands] | None  # how a group is executed: a layer in pieces, several in bands, or a move


@dataclass(frozen=True)
class Schedule:
    """Steps and the buffers in SRAM that they use."""

    steps: list[Step]
    buffers: list[Buffer]


def schedule(
    memory: Memory, members: Sequence[tuple[int, ...]], ways: Sequence[Way], ahead: frozenset[int]
) -> Schedule:
    """The steps of all groups of layers. Groups in `ahead` may begin to load while the one before still computes."""
    steps: list[Step] = []
    for number, (group, way) in enumerate(zip(members, ways, strict=True)):
        made = _steps(memory, group, way)
        if number not in ahead:
            made[0].late, made[0].early = made[0].early, []
        steps += made
    _place_early_loads(steps)
    _note_use(steps)
    return Schedule(steps, [buffer for buffer in memory.buffers if buffer.last >= 0])


def _steps(memory: Memory, group: tuple[int, ...], way: Way) -> list[Step]:
    if isinstance(way, tuple):
        return CascadeSteps(memory, group, *way).steps()
    layer = LayerSteps(memory, group[0])
    return layer.move() if way is None else layer.compute(way)


def _place_early_loads(steps: list[Step]) -> None:
    """Loads of what the step before makes are late, and so are all loads into the same buffer."""
    for unit, step in enumerate(steps):
        if unit == 0:
            continue
        made = _written(steps[unit - 1])
        targets = {load.target.home for load in step.early if load.source.home in made}
        step.late += [load for load in step.early if load.target.home in targets]
        step.early = [load for load in step.early if load.target.home not in targets]


def _written(step: Step) -> set[Buffer | Storage]:
    found: set[Buffer | Storage] = {store.target.home for store in step.stores}
    for command in step.work:
        if isinstance(command, Transfer):
            found.add(command.target.home)
        else:
            found.update(spot.home for spot in command.writes)
    return found


def _note_use(steps: list[Step]) -> None:
    """In which units every buffer is in use."""

    def note(unit: int, *spots: Spot | None) -> None:
        for spot in spots:
            if spot is not None and isinstance(spot.home, Buffer):
                spot.home.use(unit)

    for unit, step in enumerate(steps):
        for load in step.early:
            note(max(unit - 1, 0), load.source, load.target)
        for command in (*step.late, *step.work, *step.stores):
            if isinstance(command, Transfer):
                note(unit, command.source, command.target)
            else:
                note(unit, *command.reads, *command.writes)
