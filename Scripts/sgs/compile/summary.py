"""The figures of an image that its user wants to see first."""

from __future__ import annotations

from dataclasses import dataclass

from sgs.config.chips import Chip
from sgs.img.image import Image


@dataclass(frozen=True)
class Summary:
    """Figures of one frame; bytes, and seconds as the machine model predicts them."""

    chip: str
    commands: int
    macs: int
    vector_ops: int
    dma_bytes: int
    cycles: int
    latency: float
    arena_peak: int
    arena_lower_bound: int
    weights: int

    @property
    def gap(self) -> float:
        """How far the arena lies above its lower bound, as a part of it."""
        return self.arena_peak / self.arena_lower_bound - 1 if self.arena_lower_bound else 0.0

    @property
    def frames_per_second(self) -> float:
        return 1 / self.latency if self.latency else 0.0

    def text(self) -> str:
        """The summary in lines, aligned."""
        rows = (
            ("chip", self.chip),
            ("commands", f"{self.commands:,}"),
            ("work", f"{self.macs:,} MAC, {self.vector_ops:,} vector operations"),
            ("DRAM traffic", f"{self.dma_bytes:,} bytes"),
            (
                "latency",
                f"{self.latency * 1e3:.3f} ms ({self.frames_per_second:.1f} FPS, {self.cycles:,} cycles, modelled)",
            ),
            ("weights", f"{self.weights:,} bytes"),
            ("arena", f"{self.arena_peak:,} bytes, lower bound {self.arena_lower_bound:,}, gap {self.gap:.2%}"),
        )
        width = max(len(label) for label, _ in rows)
        return "\n".join(f"{label:<{width}}  {value}" for label, value in rows)


def summarise(image: Image, chip: Chip) -> Summary:
    """The figures of an image on the chip that it was compiled for, per frame."""
    program = image.programs[0]
    commands = program.commands
    cycles = sum(command.cycles for command in commands)
    return Summary(
        chip=image.chip,
        commands=len(commands),
        macs=sum(command.macs for command in commands),
        vector_ops=sum(command.vector_ops for command in commands),
        dma_bytes=sum(command.dma_bytes for command in commands),
        cycles=cycles,
        latency=cycles / chip.clock_hz,
        arena_peak=program.arena_size,
        arena_lower_bound=program.arena_lower_bound,
        weights=int(image.weights.size),
    )
