"""show_sdk_info: versions, and the chips with their figures."""

from __future__ import annotations

import json
import platform
from importlib import metadata

from sgs import __version__
from sgs.cli.program import Parser, run
from sgs.config.chips import Chip, all_chips, chip_facts, load_chip
from sgs.report.columns import aligned

# What users call it → distributions that may provide it.
PACKAGES = {
    "numpy": ("numpy",),
    "onnx": ("onnx",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
}
# Heading of a column of the table → field of Chip, its unit, decimals.
COLUMNS: dict[str, tuple[str, float, int]] = {
    "cores": ("cores", 1, 0),
    "MAC/cycle": ("macs_per_cycle", 1, 0),
    "MAC in": ("mac_inputs", 1, 0),
    "MAC out": ("mac_outputs", 1, 0),
    "4-bit rate": ("int4_multiplier", 1, 0),
    "MHz": ("clock_hz", 1e6, 0),
    "SRAM KiB": ("sram_bytes", 1024, 0),
    "DRAM GB/s": ("dram_bytes_per_second", 1e9, 1),
}
NOTE = (
    "* modelled: MAC arrays, memories and bandwidths of these chips are unpublished; the machine model uses these\n"
    "  figures (docs/MACHINE.md). TOPS = 2 x MAC/cycle x clock of the model, for 8-bit operands. MAC in, MAC out:\n"
    "  channels that the MAC array takes and makes in a cycle. 4-bit rate: how much faster it is on 4-bit weights."
)


def main(argv: list[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run(_body, argv)


def parser() -> Parser:
    """The options of the program."""
    parser = Parser(prog="show_sdk_info.py", description="Show versions of the toolchain and the chips it knows.")
    parser.add_argument("--soc_version", metavar="NAME", help="show one chip in full (name or family, any case)")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    return parser


def _body(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    chips = all_chips() if options.soc_version is None else (load_chip(options.soc_version),)
    if options.json:
        facts = {**versions(), "chips": [chip_facts(chip) for chip in chips]}
        print(json.dumps(facts, indent=4, ensure_ascii=False))
        return 0
    for name, version in versions().items():
        print(f"{name:12} {version}")
    print()
    print(chip_text(chips[0]) if options.soc_version is not None else chip_table(chips))
    return 0


def versions() -> dict[str, str]:
    """Versions of the toolchain, of Python and of what it is built on."""
    found = {"toolchain": __version__, "python": platform.python_version()}
    return found | {name: _version(candidates) for name, candidates in PACKAGES.items()}


def _version(distributions: tuple[str, ...]) -> str:
    for distribution in distributions:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return "not installed"


def chip_table(chips: tuple[Chip, ...]) -> str:
    """One line a chip, columns aligned; modelled figures carry a `*`."""
    rows = [["chip", "family", "aliases", "public figure", "TOPS", *COLUMNS, "number formats"]]
    for chip in chips:
        columns = COLUMNS.values()
        figures = [f"{getattr(chip, key) / unit:.{places}f}{_mark(chip, key)}" for key, unit, places in columns]
        tops = f"{chip.tops:.2f}{_mark(chip, 'macs_per_cycle')}"
        formats = ",".join(chip.number_formats) + _mark(chip, "number_formats")
        words = [chip.name, chip.family or "-", ",".join(chip.aliases) or "-", chip.public_figure or "-"]
        rows.append([*words, tops, *figures, formats])
    return "\n".join([*aligned(rows), "", NOTE])


def _mark(chip: Chip, field: str) -> str:
    return "*" if chip.provenance[field] == "modelled" else ""


def chip_text(chip: Chip) -> str:
    """One figure a line, with its provenance."""
    lines = [f"{'chip':24}{chip.name}", f"{'tops':24}{chip.tops:<28.3f}derived"]
    for name in chip.figures:
        value = getattr(chip, name)
        shown = ",".join(value) if isinstance(value, tuple) else str(value) or "-"
        lines.append(f"{name:24}{shown:27} {chip.provenance[name]}")
    return "\n".join(lines)
