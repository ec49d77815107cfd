"""What happens to an imported graph, in order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from sgs.ir.graph import Graph
from sgs.ir.verify import verify
from sgs.passes.block_windows import block_windows
from sgs.passes.channel_shuffle import channel_shuffle
from sgs.passes.depth_to_space import depth_to_space
from sgs.passes.factor_normalisation import factor_normalisation
from sgs.passes.fold_batch_norm import fold_batch_norm
from sgs.passes.fold_constants import fold_constants
from sgs.passes.fold_gather import fold_gather
from sgs.passes.fold_identity import fold_identity
from sgs.passes.fold_pad import fold_pad
from sgs.passes.fold_reshape import fold_reshape
from sgs.passes.fold_transpose import fold_transpose
from sgs.passes.fuse_activation import fuse_activation
from sgs.passes.fuse_prelu import fuse_prelu
from sgs.passes.hoist_arithmetic import hoist_arithmetic
from sgs.passes.layout import move_transposes
from sgs.passes.merge_duplicates import merge_duplicates
from sgs.passes.pair_rounding import pair_rounding
from sgs.passes.permute_fully_connected import permute_fully_connected
from sgs.passes.repeat_pixels import repeat_pixels
from sgs.passes.stack_slices import stack_slices
from sgs.passes.whole_windows import whole_windows

_log = logging.getLogger(__name__)
Pass = Callable[[Graph], int]

_ROUNDS = 8  # a graph that still changes after so many rounds is left as it is

# Transposes first: the patterns of all other passes are those of NHWC graphs.
LAYOUT: Sequence[Pass] = (
    fold_constants,
    fold_identity,
    pair_rounding,
    move_transposes,
    fold_transpose,
    fold_reshape,
    stack_slices,
    depth_to_space,
    repeat_pixels,
    channel_shuffle,
    permute_fully_connected,
)
ARITHMETIC: Sequence[Pass] = (
    merge_duplicates,
    fold_identity,
    hoist_arithmetic,
    factor_normalisation,
    fold_batch_norm,
    fold_gather,
    fold_pad,
    block_windows,
    fuse_prelu,
    whole_windows,
    fuse_activation,
)


def optimise(graph: Graph) -> dict[str, int]:
    """Rewrite an imported float graph in place into what quantisation and compiler expect: no Transpose that the
    layout of activations does not need, batch normalisation, padding and activations inside the operators they belong
    to.

    Returns how many rewrites each pass made, by name.
    """
    total: dict[str, int] = {}
    graph.prune()
    for group in (LAYOUT, ARITHMETIC, LAYOUT):
        for _ in range(_ROUNDS):
            if not sum(_apply(step, graph, total) for step in group):
                break
    return total


def _apply(step: Pass, graph: Graph, total: dict[str, int]) -> int:
    """Run one pass and check the graph behind it."""
    count = step(graph)
    name = step.__name__
    verify(graph, name)
    total[name] = total.get(name, 0) + count
    _log.debug("%s: %d rewrites, %d nodes", name, count, len(graph.nodes))
    return count
