"""The order of operators: another one only where it asks for less memory, and always a topological one."""

from __future__ import annotations

from sgs.compile.live import reside
from sgs.compile.order import depth_first, ordered, peak_alive, smallest_first
from sgs.ir import Graph, violations
from test_compile import Fixed


def two_branches() -> Graph:
    """Both branches grow to eight times the operand before they shrink again; given level by level, so that both are
    wide at the same time."""
    f = Fixed()
    x = f.input("x", (1, 8, 8, 4))
    wide = [f.conv(x, 32, 1), f.conv(x, 32, 3)]
    narrow = [f.conv(wide[0], 2, 1), f.conv(wide[1], 2, 3)]
    return f.done(f("ADD", narrow[0], narrow[1], bound=9.0, activation="NONE"))


def names(graph: Graph) -> list[str]:
    return [node.outputs[0] for node in graph.nodes]


def test_branches_go_one_after_the_other() -> None:
    graph = two_branches()
    given = names(graph)
    found = ordered(graph, 1 << 20)
    assert names(graph) == given  # left as it is
    assert violations(found) == [] and sorted(names(found)) == sorted(given)
    wide, narrow = 8 * 8 * 32 * 2, 8 * 8 * 2 * 2
    assert peak_alive(reside(graph)) == 2 * wide + narrow
    assert peak_alive(reside(found)) == wide + 2 * narrow
    for make in (smallest_first, depth_first):
        trial = graph.copy()
        trial.nodes = make(trial)
        assert peak_alive(reside(trial)) == wide + 2 * narrow, make.__name__


def test_nothing_changes_without_need() -> None:
    f = Fixed()
    y = f.conv(f.input("x", (1, 8, 8, 4)), 4, 1)
    graph = f.done(f.conv(f.conv(y, 4, 1), 4, 1))
    assert ordered(graph, 1 << 20) is graph
