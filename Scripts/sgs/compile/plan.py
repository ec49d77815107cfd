"""Everything that is decided about a graph on a chip: what lies where, in which pieces, in which order.

Layers are first planned one by one. Where a tensor between them had to go to DRAM, the layers that make and read it
become a group that is executed band by band, as long as it fits. Pieces are chosen for the memory that is free at each
group; that their buffers can be laid out without gaps is only known once an allocator has tried. Where it fails, all is
decided again for a little less memory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sgs.compile.allocate import Plan, allocate
from sgs.compile.cascade import BANDS, MOST_BANDS, Cascade, RowNeeds
from sgs.compile.live import LiveRange, Residence, Storage, reside, rounded
from sgs.compile.memory import Memory
from sgs.compile.residency import Groups, InPlace, Span, choose_resident, names_of, saved_in_place
from sgs.compile.schedule import Schedule, Way, schedule
from sgs.compile.tiling import Cutter, Tiling, quickest, tightest
from sgs.config.chips import Chip
from sgs.errors import UserError
from sgs.ir.graph import Graph, Node
from sgs.registry import COST, MOVE, TILE

SRAM_EFFORT = 20_000  # decisions of the exact search, where a better plan may keep more on the chip
SHRINK = (0.97, 0.94, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)  # of SRAM, tried one after the other
LOOK_BACK = 3  # groups before one that it is put together with
REACH = 12  # groups between the one that makes a tensor and the one that reads it, to become one

_log = logging.getLogger(__name__)
Members = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Decision:
    """A schedule with an offset for every buffer in SRAM and every storage in the arena, in the order of the live
    ranges that they were allocated for."""

    residence: Residence
    schedule: Schedule
    sram_ranges: tuple[LiveRange, ...]
    sram: Plan
    in_inputs: Mapping[Storage, tuple[int, int]]  # storages in the caller's inputs: (which one, offset)
    arena_homes: tuple[Storage, ...]
    arena_ranges: tuple[LiveRange, ...]
    arena: Plan


def decide(graph: Graph, chip: Chip, *, inplace_inputs: bool = False) -> Decision:
    """Plan a graph whose outputs are separate. With `inplace_inputs` the caller's inputs, once read for the last time,
    are memory for what comes later. Raises UserError for a layer whose smallest piece does not fit."""
    planner = _Planner(graph, reside(graph), chip)
    for groups, resident, steps in _attempts(planner, chip.sram_bytes):
        ranges = tuple(LiveRange(b.name, b.first, b.last, b.size) for b in steps.buffers)
        sram = allocate(ranges, effort=SRAM_EFFORT)
        _log.info(
            "%d layers in %d groups, %d of %d tensors stay, buffers take %s of %s bytes",
            len(planner.residence.layers),
            len(groups.members),
            len(resident),
            len(groups.spans),
            f"{sram.peak:,}",
            f"{chip.sram_bytes:,}",
        )
        if sram.peak <= chip.sram_bytes:
            break
    else:
        raise UserError(
            f"no layout of the buffers fits {chip.sram_bytes:,} bytes of SRAM",
            stage="compile",
            remedy="choose a chip with more SRAM",
        )
    away = [home for home in groups.spans if home not in resident]
    in_inputs = _in_inputs(graph, planner.residence, groups, away, chip.alignment) if inplace_inputs else {}
    homes = tuple(home for home in away if home not in in_inputs)
    arena_ranges = _ranges(groups, homes, chip.alignment)
    return Decision(planner.residence, steps, ranges, sram, in_inputs, homes, arena_ranges, allocate(arena_ranges))


Attempt = tuple[Groups, frozenset[Storage], Schedule]


def _attempts(planner: _Planner, capacity: int) -> Iterator[Attempt]:
    """Plans for ever less SRAM, then for layers one by one. Raises UserError for a layer that does not fit at all."""
    yield planner.scheduled(capacity)
    for share in SHRINK:
        try:
            yield planner.scheduled(int(capacity * share))
        except UserError as error:  # that layers fit was seen above
            _log.info("%d %% of SRAM: %s", 100 * share, error)
            break
    yield planner.alone(capacity)


def _ranges(groups: Groups, homes: Sequence[Storage], alignment: int) -> tuple[LiveRange, ...]:
    return tuple(LiveRange(home.name, *groups.spans[home], rounded(home.size, alignment)) for home in homes)


def _in_inputs(
    graph: Graph, residence: Residence, groups: Groups, away: Sequence[Storage], alignment: int
) -> dict[Storage, tuple[int, int]]:
    """Storages that fit the caller's inputs after these were read for the last time, large ones first."""
    found: dict[Storage, tuple[int, int]] = {}
    for index, name in enumerate(graph.inputs):
        home = residence.storage[name]
        last = max((number for number, touched in enumerate(groups.touched) if home in touched), default=-1)
        inside: list[Storage] = []
        later = [other for other in away if groups.spans[other][0] > last and other not in found]
        for other in sorted(later, key=lambda other: (-other.size, other.name)):
            if allocate(_ranges(groups, [*inside, other], alignment)).peak <= home.size:
                inside.append(other)
        offsets = allocate(_ranges(groups, inside, alignment)).offsets
        found.update({other: (index, offset) for other, offset in zip(inside, offsets, strict=True)})
    return found


class _Planner:
    """Plans for one graph and chip; what was found out about layers and groups is remembered."""

    def __init__(self, graph: Graph, residence: Residence, chip: Chip) -> None:
        self.graph, self.residence, self._chip = graph, residence, chip
        self._needs = RowNeeds(graph)
        self._cutters: dict[tuple[int, frozenset[str]], Cutter] = {}
        self._tightest: dict[tuple[int, frozenset[str], int], Tiling] = {}
        self._cascades: dict[tuple[int, ...], Cascade | None] = {}

    def scheduled(self, capacity: int) -> Attempt:
        """Groups, what stays in SRAM, and the steps, for so many bytes of it."""
        members: Members = tuple((layer,) for layer in range(len(self.residence.layers)))
        groups = Groups.of(self.residence, members)
        resident = self._resident(groups, capacity)
        while True:
            members = self._joined(groups, resident, capacity)
            if members == groups.members:
                break
            joined = Groups.of(self.residence, members)
            chosen = self._chosen(joined, capacity)
            if not isinstance(chosen, frozenset):  # what stays was chosen anew, and another group does not fit
                break
            groups, resident = joined, chosen
        return groups, resident, self._steps(groups, resident, capacity)

    def alone(self, capacity: int) -> Attempt:
        """The same for layers one by one, with nothing that stays in SRAM."""
        groups = Groups.of(self.residence, tuple((layer,) for layer in range(len(self.residence.layers))))
        return groups, frozenset(), self._steps(groups, frozenset(), capacity)

    # -- one group -----------------------------------------------------------------------------------------------------
    def _cutter(self, layer: int, resident: frozenset[str]) -> Cutter:
        key = layer, resident
        if key not in self._cutters:
            node, chip = self.residence.layers[layer], self._chip
            array = COST[node.op](node, self.graph.operands(node), self.graph.results(node)).array
            channels = 1 if array is None else chip.mac_outputs
            self._cutters[key] = Cutter(self.graph, node, resident, chip.alignment, channels)
        return self._cutters[key]

    def _cascade(self, layers: tuple[int, ...]) -> Cascade | None:
        """Successive layers band by band, None where they cannot be executed so."""
        if layers not in self._cascades:
            try:
                cascade = Cascade(self._needs, self.residence, layers, self._chip.alignment)
                cascade.bands(2, frozenset())
            except ValueError:
                self._cascades[layers] = None
            else:
                self._cascades[layers] = cascade
        return self._cascades[layers]

    def _names(self, layers: tuple[int, ...], resident: frozenset[Storage]) -> frozenset[str]:
        """Tensors of layers that lie in SRAM whole."""
        nodes = [self.residence.layers[layer] for layer in layers]
        return frozenset(name for node in nodes for name in names_of(node) if self.residence.storage[name] in resident)

    def _working(self, groups: Groups, group: int, resident: frozenset[Storage], capacity: int) -> int:
        """Bytes that a group takes at the least, without being cut too finely."""
        layers = groups.members[group]
        names = self._names(layers, resident)
        if len(layers) > 1:
            cascade = self._cascade(layers)
            assert cascade is not None
            return cascade.bands(MOST_BANDS, names).memory
        if self.residence.layers[layers[0]].op in MOVE:
            return 0
        key = layers[0], names, capacity
        if key not in self._tightest:
            self._tightest[key] = tightest(self._cutter(layers[0], names), capacity)
        return self._tightest[key].memory

    # -- all groups ----------------------------------------------------------------------------------------------------
    def _chosen(self, groups: Groups, capacity: int) -> frozenset[Storage] | int:
        """What stays in SRAM, or a group that does not fit."""

        def working(group: int, resident: frozenset[Storage]) -> int:
            return self._working(groups, group, resident, capacity)

        return choose_resident(groups, working, self._in_place(groups), capacity, self._chip.alignment)

    def _resident(self, groups: Groups, capacity: int) -> frozenset[Storage]:
        chosen = self._chosen(groups, capacity)
        if isinstance(chosen, frozenset):
            return chosen
        need = self._working(groups, chosen, frozenset(), capacity)
        raise UserError(
            f"its smallest piece needs {need:,} bytes of SRAM, there are {capacity:,}",
            stage="compile",
            node=self.residence.layers[groups.members[chosen][0]].label,
            remedy="choose a chip with more SRAM, or make the layer smaller",
        )

    def _in_place(self, groups: Groups) -> InPlace:
        """Where the result of an elementwise layer may lie on an operand that nobody needs any more."""
        found = {}
        for group, layers in enumerate(groups.members):
            node = self.residence.layers[layers[0]]
            if len(layers) > 1 or node.op not in TILE or not TILE[node.op].elementwise:
                continue
            operand = next((name for name in node.inputs if self._ends_in(groups, group, name, node)), None)
            if operand is not None:
                found[group] = self.residence.storage[operand], self.residence.storage[node.outputs[0]]
        return found

    def _ends_in(self, groups: Groups, group: int, name: str | None, node: Node) -> bool:
        """Whether an operand has a storage for itself that ends with its reader, and the result one like it that begins
        there."""
        storage, result = self.residence.storage, node.outputs[0]
        if name is None or self.graph[name].shape != self.graph[result].shape:
            return False
        ends, begins = (groups.spans.get(storage[tensor], (-1, -1)) for tensor in (name, result))
        if ends[1] != group or begins[0] != group:
            return False
        alone = all(self.residence.offset[tensor] == 0 for tensor in (name, result))
        sizes = {storage[name].size, storage[result].size, self.graph[name].nbytes, self.graph[result].nbytes}
        others = [other for other in node.inputs if other not in (name, None)]
        return alone and len(sizes) == 1 and all(storage[other or ""] is not storage[name] for other in others)

    def _joined(self, groups: Groups, resident: frozenset[Storage], capacity: int) -> Members:
        """Groups put together around tensors that lie in DRAM, in one pass from the first to the last. What does not
        fit may do so together with the groups before it: what these make for it need not exist whole then."""
        spans: list[Span] = []
        group = 0
        while group < len(groups.members):
            first = last = group
            while (reader := self._next_reader(groups, resident, first, last)) is not None:
                starts = [first, *(start for start, _ in reversed(spans[-LOOK_BACK:]))]
                start = next((s for s in starts if self._fits(groups, resident, (s, reader), capacity)), None)
                if start is None:
                    break
                first, last = start, reader
            spans = [span for span in spans if span[0] < first]
            spans.append((first, last))
            group = last + 1
        return tuple(
            tuple(layer for members in groups.members[first : last + 1] for layer in members) for first, last in spans
        )

    def _next_reader(self, groups: Groups, resident: frozenset[Storage], first: int, last: int) -> int | None:
        """The nearest later group that reads from DRAM what the groups from `first` to `last` make."""
        spilled = {
            home for home, (born, dies) in groups.spans.items() if home not in resident and first <= born <= last < dies
        }
        for group in range(last + 1, min(last + 1 + REACH, len(groups.members))):
            if groups.touched[group] & spilled:
                return group
        return None

    def _fits(
        self,
        groups: Groups,
        resident: frozenset[Storage],
        span: Span,
        capacity: int,
    ) -> bool:
        """Whether groups can be one in the memory that is free beside what stays in SRAM anyway."""
        layers = tuple(layer for members in groups.members[span[0] : span[1] + 1] for layer in members)
        cascade = self._cascade(layers)
        if cascade is None:
            return False
        kept = resident - cascade.inside
        beside = sum(
            rounded(home.size, self._chip.alignment)
            for home in kept
            if groups.spans[home][0] <= span[1] and groups.spans[home][1] >= span[0]
        )
        if cascade.constants + beside > capacity:
            return False
        return cascade.bands(MOST_BANDS, self._names(layers, kept)).memory + beside <= capacity

    def _alive(self, groups: Groups, resident: frozenset[Storage]) -> list[int]:
        """Bytes that stay in SRAM beside each group."""
        in_place = self._in_place(groups)
        alive = [0] * len(groups.members)
        for home in resident:
            for group in range(groups.spans[home][0], groups.spans[home][1] + 1):
                alive[group] += rounded(home.size, self._chip.alignment)
        return [total - saved_in_place(in_place, group, resident) for group, total in enumerate(alive)]

    def _steps(self, groups: Groups, resident: frozenset[Storage], capacity: int) -> Schedule:
        alive = self._alive(groups, resident)
        ways: list[Way] = []
        taken: list[int] = []
        for group in range(len(groups.members)):
            way = self._way(groups, group, resident, capacity - alive[group])
            ways.append(way)
            taken.append(0 if way is None else way[1].memory if isinstance(way, tuple) else way.memory)
        ahead = {
            group for group in range(1, len(taken)) if alive[group - 1] + taken[group - 1] + taken[group] <= capacity
        }
        on_operands = {result: operand for operand, result in self._in_place(groups).values()}
        memory = Memory.of(self.graph, self.residence, resident, on_operands, self._chip.alignment)
        return schedule(memory, groups.members, ways, frozenset(ahead))

    def _way(self, groups: Groups, group: int, resident: frozenset[Storage], memory: int) -> Way:
        """The quickest way to execute a group in so much memory."""
        layers = groups.members[group]
        names = self._names(layers, resident)
        if len(layers) > 1:
            cascade = self._cascade(layers)
            assert cascade is not None
            ways = (cascade.bands(count, names) for count in BANDS)
            return cascade, next(bands for bands in ways if bands.memory <= memory)
        if self.residence.layers[layers[0]].op in MOVE:
            return None
        chip = self._chip
        step_bytes = chip.dram_latency_cycles * chip.dram_bytes_per_second // chip.clock_hz
        tiling = quickest(self._cutter(layers[0], names), memory, step_bytes)
        assert tiling is not None, "it fitted when residents were chosen"
        return tiling
