"""Which storages stay in SRAM from the group of layers that makes them to the last one that reads them.

All do that can. Where a group and what lives beside it do not fit, storages go to DRAM: those first that free the most
for the traffic that they cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sgs.compile.live import Residence, Storage, rounded
from sgs.img.image import Space
from sgs.ir.graph import Node

Span = tuple[int, int]  # first and last group, both included


def names_of(node: Node) -> list[str]:
    """Tensors that a node reads or writes."""
    return [name for name in (*node.inputs, *node.outputs) if name is not None]


@dataclass(frozen=True)
class Groups:
    """Layers in groups that are executed together: `members` by number, in order. `spans` has every storage of the
    program's own but those `inside` that one group alone makes and reads, whole tensors of which never exist."""

    members: tuple[tuple[int, ...], ...]
    spans: Mapping[Storage, Span]
    inside: frozenset[Storage]
    touched: tuple[frozenset[Storage], ...]  # storages that a group reads or writes
    readers: Mapping[Storage, int]  # how many groups read a storage

    @classmethod
    def of(cls, residence: Residence, members: Sequence[tuple[int, ...]]) -> Groups:
        """Groups of the layers of a graph."""
        number = {layer: index for index, group in enumerate(members) for layer in group}
        spans = {home: (number[first], number[last]) for home, (first, last) in residence.spans.items()}
        inside = frozenset().union(*(inner_storages(residence, group) for group in members if len(group) > 1))
        touched: list[frozenset[Storage]] = []
        readers: dict[Storage, int] = {}
        for group in members:
            nodes = [residence.layers[layer] for layer in group]
            touched.append(frozenset(residence.storage[name] for node in nodes for name in names_of(node)))
            for home in {residence.storage[name] for node in nodes for name in node.inputs if name is not None}:
                readers[home] = readers.get(home, 0) + 1
        kept = {home: span for home, span in spans.items() if home not in inside}
        return cls(tuple(members), kept, inside, tuple(touched), readers)


def inner_storages(residence: Residence, layers: Sequence[int]) -> frozenset[Storage]:
    """Storages that successive layers make and read, and no other layer does."""
    made = {residence.storage[name] for layer in layers for name in residence.layers[layer].outputs}
    ends = layers[0], layers[-1]
    spans = residence.spans
    return frozenset(h for h in made if h in spans and ends[0] <= spans[h][0] < spans[h][1] <= ends[1])


Working = Callable[[int, frozenset[Storage]], int]  # (group, resident storages) → bytes of its pieces
InPlace = Mapping[int, tuple[Storage, Storage]]  # group → (operand that ends with it, result that may lie on it)


def saved_in_place(in_place: InPlace, group: int, resident: frozenset[Storage] | set[Storage]) -> int:
    """Bytes that a group does not need because its result lies on an operand."""
    pair = in_place.get(group)
    return pair[0].size if pair is not None and resident.issuperset(pair) else 0


def choose_resident(
    groups: Groups, working: Working, in_place: InPlace, capacity: int, alignment: int
) -> frozenset[Storage] | int:
    """The storages that stay in SRAM, or the first group that does not fit whatever leaves."""
    size = {home: rounded(home.size, alignment) for home in groups.spans}
    resident = {home for home in groups.spans if size[home] <= capacity}
    alive = [0] * len(groups.members)
    for home in resident:
        for group in range(groups.spans[home][0], groups.spans[home][1] + 1):
            alive[group] += size[home]
    excess: dict[int, int] = {}

    def update(group: int) -> None:
        need = working(group, frozenset(resident & groups.touched[group]))
        over = alive[group] - saved_in_place(in_place, group, resident) + need - capacity
        excess.pop(group, None)
        if over > 0:
            excess[group] = over

    for group in range(len(groups.members)):
        update(group)
    while excess:
        leaver = _leaver(groups, resident, excess)
        if leaver is None:
            return min(excess)
        resident.remove(leaver)
        for group in range(groups.spans[leaver][0], groups.spans[leaver][1] + 1):
            alive[group] -= size[leaver]
            if leaver in groups.touched[group]:
                update(group)
            elif group in excess:
                excess[group] -= size[leaver]
                if excess[group] <= 0:
                    del excess[group]
    _call_back(groups, resident, working, (capacity, alignment))
    return frozenset(resident)


def _call_back(groups: Groups, resident: set[Storage], working: Working, room: tuple[int, int]) -> None:
    """Let storages stay after all that fit again now that others have left, those first that save most traffic."""
    capacity, alignment = room
    alive = [0] * len(groups.members)

    def stay(home: Storage) -> None:
        for group in range(groups.spans[home][0], groups.spans[home][1] + 1):
            alive[group] += rounded(home.size, alignment)

    def fits(home: Storage) -> bool:
        trial = resident | {home}
        for group in range(groups.spans[home][0], groups.spans[home][1] + 1):
            need = working(group, frozenset(trial & groups.touched[group]))
            if alive[group] + size[home] + need > capacity:
                return False
        return True

    size = {home: rounded(home.size, alignment) for home in groups.spans}
    for home in resident:
        stay(home)
    away = [home for home in groups.spans if home not in resident]
    for home in sorted(away, key=lambda home: (-home.size * (1 + groups.readers.get(home, 0)), home.name)):
        if fits(home):
            resident.add(home)
            stay(home)


def _leaver(groups: Groups, resident: set[Storage], excess: Mapping[int, int]) -> Storage | None:
    """The storage that frees most, of what is missing, for a byte of traffic; None when no one would help."""

    def worth(home: Storage) -> float:
        first, last = groups.spans[home]
        freed = sum(min(over, home.size) for group, over in excess.items() if first <= group <= last)
        return freed / (home.size * (1 + groups.readers.get(home, 0)))

    best = max(resident, key=lambda home: (worth(home), home.name), default=None)
    return best if best is not None and worth(best) > 0 else None


# -- what no plan can do without ---------------------------------------------------------------------------------------
def spill_bound(residence: Residence, capacity: int) -> int:
    """Bytes that must cross between DRAM and SRAM because a layer's operands and results, and what lives beside them,
    are more than SRAM holds: written once and read once, however cleverly they are chosen.

    At every layer, what is alive beyond `capacity` is in DRAM. The fewest bytes that satisfy all layers are found by
    going through them in order and always sending away what is needed longest: an interval cover with unit costs.
    """
    left = {home: home.size for home in residence.spans}  # bytes that are in SRAM
    away = 0
    for layer in range(len(residence.layers)):
        alive = [home for home, (first, last) in residence.spans.items() if first <= layer <= last]
        over = sum(left[home] for home in alive) - capacity
        for home in sorted(alive, key=lambda home: -residence.spans[home][1]):
            if over <= 0:
                break
            sent = min(over, left[home])
            left[home] -= sent
            over -= sent
            away += sent
    return 2 * away


def compulsory_traffic(residence: Residence, capacity: int) -> int:
    """DRAM bytes that no plan that works layer by layer can do without: weights, inputs and outputs once, and
    `spill_bound`."""
    used = {residence.storage[name] for node in residence.layers for name in names_of(node)}
    return sum(home.size for home in used if home.space is not Space.ARENA) + spill_bound(residence, capacity)
