"""The compiler on one page: from a fixed graph to an offline image, one step a line."""

from __future__ import annotations

from collections.abc import Sequence

from sgs.compile.allocate import check_plan
from sgs.compile.batches import check_inplace, checked_batches
from sgs.compile.emit import Target, emit
from sgs.compile.fold_pixels import with_direct_pixels
from sgs.compile.legalise import check_legal
from sgs.compile.order import ordered
from sgs.compile.outputs import separate_outputs
from sgs.compile.plan import decide
from sgs.config.chips import Chip
from sgs.errors import UserError
from sgs.img.check import violations
from sgs.img.image import CATEGORIES, Image
from sgs.ir.graph import Graph
from sgs.ir.verify import verify


def compile_graph(
    graph: Graph,
    chip: Chip,
    *,
    batch_mode: str = "n_buf",
    batches: int | Sequence[int] = 1,
    category: str = "Unknown",
    inplace_inputs: bool = False,
) -> Image:
    """Compile a fixed graph, which is left as it is. Same arguments, same image.

    Args:
        batch_mode: "n_buf" (each frame in buffers of its own) or "one_buf" (frames stacked on the highest dimension).
        batches: n_buf: the largest number of frames; one_buf: up to 10 legal numbers.
        category: "Classification", "Detection" or "Unknown", kept for the simulator.

        inplace_inputs: one_buf with inputs of real numbers only: these are overwritten once they have been read.

    Raises:
        UserError: the graph, its batches or its category are not for this chip; all nodes at fault are named at once.
    """
    mode, sizes = checked_batches(batch_mode, batches, chip)
    if category not in CATEGORIES:
        raise UserError(f"'{category}' is not one of {', '.join(CATEGORIES)}", stage="compile", node="category")
    verify(graph, "reading the fixed graph")
    if inplace_inputs:
        check_inplace(graph, mode)
    check_legal(graph, chip)
    direct = with_direct_pixels(graph)
    verify(direct, "feeding pixels directly")
    separated = separate_outputs(direct)
    verify(separated, "separating the outputs")
    in_order = ordered(separated, chip.sram_bytes)
    verify(in_order, "ordering the operators")
    decision = decide(in_order, chip, inplace_inputs=inplace_inputs)
    for where, ranges, plan in (
        ("SRAM", decision.sram_ranges, decision.sram),
        ("arena", decision.arena_ranges, decision.arena),
    ):
        _ours(check_plan(ranges, plan.offsets, plan.peak, chip.alignment), f"allocation of the {where}")
    image = emit(in_order, decision, Target(chip, mode, sizes, category, inplace_inputs), graph.outputs)
    _ours(violations(image), "emission")
    return image


def _ours(complaints: list[str], step: str) -> None:
    """Stop for what only a defect of ours can cause."""
    if complaints:
        raise AssertionError(f"the image is not well formed after {step}:\n" + "\n".join(complaints[:20]))
