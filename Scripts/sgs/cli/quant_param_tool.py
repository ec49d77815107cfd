"""save_quant_param: the quantisation parameters of a fixed .sim as a file that --quant_file takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sgs.cli.options import one_of
from sgs.cli.program import Parser, run
from sgs.data.files import atomic_output
from sgs.products import check_outputs
from sgs.quant.export import exported, json_text, pickle_bytes
from sgs.sim import expect_stage, read_sim

SUFFIX = {"JSON": ".json", "Pickle": ".pkl"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run(_body, argv)


def parser() -> Parser:
    """The options of the program."""
    parser = Parser(prog="save_quant_param.py", description="Write down the quantisation parameters of a fixed .sim.")
    parser.add_argument(
        "-m", "--model", "--model_file", dest="model", metavar="SIM", required=True, help="the fixed .sim"
    )
    text = f"{' or '.join(SUFFIX)} (default: JSON)"
    parser.add_argument("--output_mode", metavar="MODE", type=one_of(tuple(SUFFIX)), default="JSON", help=text)
    text = "the file to write (default: <model without .sim>_quant_param.json or .pkl)"
    parser.add_argument("-o", "--output", metavar="PATH", help=text)
    return parser


def _body(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    model = Path(options.model)
    default = model.with_name(f"{model.name.removesuffix('.sim')}_quant_param{SUFFIX[options.output_mode]}")
    target = default if options.output is None else Path(options.output)
    check_outputs([target], [model])
    entries = exported(expect_stage(read_sim(model), "fixed", "save_quant_param.py"))
    data = pickle_bytes(entries) if options.output_mode == "Pickle" else json_text(entries).encode("utf-8")
    with atomic_output(target) as file:
        file.write_bytes(data)
    print(f"Quant parameters at: {target}")
    return 0
