"""show_img_info: what an offline .img says of itself, and its commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from sgs.cli.options import count
from sgs.cli.program import Parser, run
from sgs.config.chips import Chip, all_chips
from sgs.config.nearest import did_you_mean
from sgs.errors import UserError
from sgs.img import Image, read_image
from sgs.report.disassembly import Line, disassembly, disassembly_text
from sgs.report.image_info import image_facts, image_text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run(_body, argv)


def parser() -> Parser:
    """The options of the program."""
    parser = Parser(prog="show_img_info.py", description="Show what is in an offline .img.")
    parser.add_argument(
        "-m", "--model", "--model_file", dest="model", metavar="IMG", required=True, help="the offline .img"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.add_argument("--commands", action="store_true", help="list the commands instead, one a line")
    parser.add_argument("--layer", metavar="NAME", help="with --commands: only those of this layer")
    parser.add_argument("--limit", metavar="N", type=count, help="with --commands: only the first N")
    return parser


def _body(argv: list[str]) -> int:
    program = parser()
    options = program.parse_args(argv)
    if not options.commands and (options.layer is not None or options.limit is not None):
        program.error("--layer and --limit go with --commands")
    image = read_image(options.model)
    if not options.commands:
        facts = image_facts(image, _chip(image), Path(options.model).stat().st_size)
        print(json.dumps(facts, indent=1, ensure_ascii=False) if options.json else image_text(facts))
        return 0
    lines = _lines(image, options.layer, options.model)
    shown = lines[: options.limit]
    if options.json:
        print(json.dumps([asdict(line) for line in shown], indent=1, ensure_ascii=False))
        return 0
    print("\n".join(disassembly_text(shown)))
    if len(shown) < len(lines):
        print(f"and {len(lines) - len(shown):,} more commands")
    return 0


def _chip(image: Image) -> Chip | None:
    """The image's chip, None for one that this version does not know."""
    return next((chip for chip in all_chips() if chip.name == image.chip), None)


def _lines(image: Image, layer: str | None, file: str) -> list[Line]:
    """The commands of the first program, or of one layer of it."""
    known = {one.name for one in image.layers}
    if layer is not None and layer not in known:
        remedy = did_you_mean(layer, sorted(known))
        raise UserError(f"there is no layer '{layer}'", stage="--layer", file=file, remedy=remedy)
    lines = disassembly(image, image.programs[0])
    return [line for line in lines if layer in (None, line.layer)]


if __name__ == "__main__":
    sys.exit(main())
