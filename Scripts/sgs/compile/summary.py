"""The figures of an image that its user wants to see first."""

from __future__ import annotations

from dataclasses import dataclass

from sgs.config.chips import Chip
from sgs.img.image import BatchMode, Image


@dataclass(frozen=True)
class Summary:
    """Figures of one frame; bytes, and seconds as the machine model predicts them."""

    chip: str
    batch_mode: BatchMode
    batches: tuple[int, ...]
    layers: int
    commands: int
    macs: int
    vector_ops: int
    dram_bytes: int
    compulsory_bytes: int
    cycles: int
    latency: float
    sram_peak: int
    sram_lower_bound: int
    sram_bytes: int
    arena_peak: int
    arena_lower_bound: int
    weights: int
    coded_weights: int

    @property
    def gap(self) -> float:
        """How far the arena lies above its lower bound, as a part of it."""
        return self.arena_peak / self.arena_lower_bound - 1 if self.arena_lower_bound else 0.0

    @property
    def traffic_ratio(self) -> float:
        """DRAM traffic over what no plan that goes layer by layer can do without."""
        return self.dram_bytes / self.compulsory_bytes if self.compulsory_bytes else 0.0

    @property
    def frames_per_second(self) -> float:
        return 1 / self.latency if self.latency else 0.0

    def text(self) -> str:
        """The summary in lines, aligned."""
        rows = (
            ("chip", self.chip),
            ("batches", f"{self.batch_mode.name.lower()}: {self._batches()}"),
            ("commands", f"{self.commands:,} for {self.layers:,} layers"),
            ("work", f"{self.macs:,} MAC, {self.vector_ops:,} vector operations"),
            (
                "DRAM traffic",
                f"{self.dram_bytes:,} bytes, {self.traffic_ratio:.2f} of {self.compulsory_bytes:,} compulsory",
            ),
            (
                "latency",
                f"{self.latency * 1e3:.3f} ms ({self.frames_per_second:.1f} FPS, {self.cycles:,} cycles, modelled)",
            ),
            ("weights", f"{self.weights:,} bytes, {self.coded_weights:,} coded"),
            ("SRAM", f"{self.sram_peak:,} of {self.sram_bytes:,} bytes, lower bound {self.sram_lower_bound:,}"),
            ("arena", f"{self.arena_peak:,} bytes, lower bound {self.arena_lower_bound:,}, gap {self.gap:.2%}"),
        )
        width = max(len(label) for label, _ in rows)
        return "\n".join(f"{label:<{width}}  {value}" for label, value in rows)

    def _batches(self) -> str:
        if self.batch_mode is BatchMode.N_BUF:
            return f"up to {self.batches[-1]}"
        return ", ".join(map(str, self.batches))


def summarise(image: Image, chip: Chip) -> Summary:
    """The figures of an image on the chip that it was compiled for, per frame."""
    program = image.programs[0]
    return Summary(
        chip=image.chip,
        batch_mode=image.batch_mode,
        batches=image.batches,
        layers=len(image.layers),
        commands=len(program.commands),
        macs=sum(layer.macs for layer in image.layers),
        vector_ops=sum(layer.vector_ops for layer in image.layers),
        dram_bytes=sum(layer.read_bytes + layer.written_bytes for layer in image.layers),
        compulsory_bytes=image.compulsory_bytes,
        cycles=program.cycles,
        latency=program.cycles / chip.clock_hz,
        sram_peak=program.sram_size,
        sram_lower_bound=program.sram_lower_bound,
        sram_bytes=image.sram_bytes,
        arena_peak=program.arena_size,
        arena_lower_bound=program.arena_lower_bound,
        weights=int(image.weights.size),
        coded_weights=sum(len(chunk.data) for chunk in image.chunks),
    )
