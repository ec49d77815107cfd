"""Where the time of a frame goes: the slowest commands of an image, and what layers take in the simulator, as text."""

from __future__ import annotations

from collections.abc import Sequence

from sgs.compile.cost import ENGINES
from sgs.config.chips import Chip
from sgs.img.image import Compute, Image
from sgs.report.columns import aligned
from sgs.report.compile import busy_cycles, engine_of
from sgs.report.disassembly import disassembly


def slowest_commands(image: Image, chip: Chip, most: int) -> list[str]:
    """The commands of a frame that keep an engine busy longest, as a heading and a line each. Of equal ones the first
    come first; shares are of the frame's time, in which engines work side by side."""
    program = image.programs[0]
    lines = disassembly(image, program)
    busy = [busy_cycles(command, chip) for command in program.commands]
    order = sorted(range(len(busy)), key=lambda index: -busy[index])[:most]
    rows = [["command", "µs", "share", "engine", "layer", "operation"]]
    for index in order:
        line, share = lines[index], busy[index] / max(1, program.cycles)
        microseconds = f"{busy[index] * 1e6 / chip.clock_hz:.2f}"
        rows.append([str(index), microseconds, f"{share:.1%}", line.engine, line.layer, line.operation])
    return aligned(rows)


def measured_layers(image: Image, chip: Chip, seconds: Sequence[float], most: int) -> list[str]:
    """The layers that took longest in the simulator, beside what the machine model predicts of them.

    `seconds`: of every command of the first program, as measured.
    """
    program = image.programs[0]
    took = [0.0] * len(image.layers)
    predicted = [0] * len(image.layers)
    for command, each in zip(program.commands, seconds, strict=True):
        took[command.layer] += each
        predicted[command.layer] += busy_cycles(command, chip)
    order = sorted(range(len(took)), key=lambda index: -took[index])[:most]
    whole, cycles = sum(took) or 1.0, sum(predicted) or 1
    rows = [["layer", "operator", "simulated µs", "share", f"{chip.name} µs", "share"]]
    for index in order:
        layer = image.layers[index]
        model = predicted[index] * 1e6 / chip.clock_hz
        shares = f"{took[index] / whole:.1%}", f"{predicted[index] / cycles:.1%}"
        rows.append([layer.name, layer.opcode, f"{took[index] * 1e6:.1f}", shares[0], f"{model:.2f}", shares[1]])
    return aligned(rows)


def busy_summary(image: Image, chip: Chip) -> list[str]:
    """The time of a frame, and how long each engine is busy in it."""
    program = image.programs[0]
    busy = dict.fromkeys(ENGINES, 0)
    for command in program.commands:
        busy[engine_of(image, command)] += busy_cycles(command, chip)
    computed = sum(isinstance(command, Compute) for command in program.commands)
    engines = ", ".join(f"{engine} {cycles / max(1, program.cycles):.0%}" for engine, cycles in busy.items())
    microseconds = program.cycles * 1e6 / chip.clock_hz
    return [
        f"{microseconds:.1f} µs a frame on {chip.name} ({program.cycles:,} cycles, modelled); busy: {engines}",
        f"{len(program.commands):,} commands, {computed:,} of them computations",
    ]
