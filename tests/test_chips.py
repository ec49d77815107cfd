"""Chip files, show_sdk_info, and what all programs share: exit codes and the argument parser."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from sgs.cli import show_sdk_info
from sgs.cli.program import Parser, run
from sgs.config import chips
from sgs.config.chips import FOLDER, KEYS, Chip, all_chips, load_chip, read_chip
from sgs.errors import UserError

ROOT = Path(__file__).parents[1]
NAMES = (
    *("ibopper", "ifackel", "ifado", "iford", "jaguar1", "maruko", "mochi", "muffin"),
    *("opera", "pcupid", "pudding", "souffle", "tiramisu"),
)


def test_the_chips_are_there() -> None:
    assert tuple(chip.name for chip in all_chips()) == NAMES


@pytest.mark.parametrize("chip", all_chips(), ids=lambda chip: chip.name)
def test_every_figure_says_where_it_comes_from(chip: Chip) -> None:
    stated = {field.name for field in fields(Chip)} - {"name", "provenance"}
    assert stated == set(KEYS)
    assert stated - {"aliases"} <= set(chip.provenance)
    assert set(chip.provenance.values()) <= {"public", "modelled"}
    for name in (
        "macs_per_cycle",
        "mac_inputs",
        "mac_outputs",
        "int4_multiplier",
        "sram_bytes",
        "dram_bytes_per_second",
        "clock_hz",
    ):
        assert chip.provenance[name] == "modelled", "unpublished: no file may call it public"


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("pudding", 0.5, 1.0), ("tiramisu", 0.76, 0.84), ("pcupid", 0.9, 1.1), ("jaguar1", 7.6, 8.4)],
)
def test_modelled_speed_agrees_with_the_public_figure(name: str, low: float, high: float) -> None:
    chip = load_chip(name)
    assert low <= chip.tops <= high
    assert chip.tops == pytest.approx(2 * chip.macs_per_cycle * chip.clock_hz / 1e12)


@pytest.mark.parametrize("chip", all_chips(), ids=lambda chip: chip.name)
def test_figures_are_plausible(chip: Chip) -> None:
    assert chip.alignment & (chip.alignment - 1) == 0
    assert chip.sram_bytes % chip.alignment == 0
    assert chip.mac_inputs * chip.mac_outputs == chip.macs_per_cycle
    assert chip.mac_inputs <= chip.mac_outputs <= 2 * chip.mac_inputs
    assert chip.int4_multiplier == (2 if "int4" in chip.number_formats else 1)
    assert 1 <= chip.dram_bytes_per_second / chip.clock_hz <= 64
    assert {"uint8", "int16"} <= set(chip.number_formats)
    assert chip.max_kernel >= 13, "the pooling pyramids of detectors"
    assert pickle.loads(pickle.dumps(chip)) == chip


@pytest.mark.parametrize(
    ("given", "name"),
    [("pudding", "pudding"), ("PUDDING", "pudding"), ("I6E", "pudding"), ("Infinity6e", "pudding")]
    + [("mercury6p", "mochi"), ("M6", "tiramisu"), ("i7", "muffin"), (" pcupid ", "pcupid")],
)
def test_names_and_aliases_in_any_case(given: str, name: str) -> None:
    assert load_chip(given).name == name


def test_an_unknown_chip_lists_the_known_ones() -> None:
    with pytest.raises(UserError) as caught:
        load_chip("puding")
    message = caught.value.render()
    assert "unknown chip 'puding'" in message
    assert "did you mean pudding?" in message
    assert all(name in message for name in NAMES)


GOOD = (FOLDER / "pudding.ini").read_text("utf-8")
BAD = [
    (GOOD.replace("cores = 1", "cores = 0"), "'0' is not one whole number above 0"),
    (GOOD.replace("cores = 1 ; modelled", "cores = 1"), "has no provenance"),
    (GOOD.replace("cores = 1 ; modelled", "cores = 1 ; guessed"), "has no provenance"),
    (GOOD.replace("cores = 1", "corse = 1"), "did you mean cores?"),
    (GOOD.replace("cores = 1 ; modelled\n", ""), "lacks cores"),
    (GOOD + "cores = 2 ; modelled\n", "appears a second time"),
    (GOOD.replace("mac_inputs = 16", "mac_inputs = 8"), "mac_inputs 8 times mac_outputs 32 is not macs_per_cycle 512"),
    (GOOD.replace("int4_multiplier = 1", "int4_multiplier = 2"), "int4_multiplier 2 is for chips with int4"),
    (GOOD.replace("int4_multiplier = 1 ; modelled, it takes no 4-bit weights\n", ""), "lacks int4_multiplier"),
]


@pytest.mark.parametrize(("text", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_bad_chip_files(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "new chip.ini"
    path.write_text(text, "utf-8")
    with pytest.raises(UserError) as caught:
        read_chip(path)
    assert reason in caught.value.render()


@pytest.fixture
def chip_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that chips are looked for in."""
    monkeypatch.setattr(chips, "FOLDER", tmp_path)
    monkeypatch.setattr(chips, "all_chips", chips.all_chips.__wrapped__)
    return tmp_path


def test_a_new_chip_is_a_new_file(chip_folder: Path) -> None:
    (chip_folder / "Waffle.ini").write_text(GOOD.replace("infinity6e, i6e", "i9"), "utf-8")
    assert chips.load_chip("I9").name == "waffle"


def test_two_chips_must_not_share_a_name(chip_folder: Path) -> None:
    for name in ("a", "b"):
        (chip_folder / f"{name}.ini").write_text(GOOD, "utf-8")
    with pytest.raises(UserError, match="a both answer to|b and a both answer"):
        chips.load_chip("a")


# ---- show_sdk_info ---------------------------------------------------------------------------------------------------


def test_show_sdk_info_lists_versions_and_chips(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_sdk_info.main([]) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in (*NAMES, "toolchain", "python", "onnxruntime", "opencv", "modelled"))


def test_show_sdk_info_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_sdk_info.main(["--json", "--soc_version", "I6E"]) == 0
    facts = json.loads(capsys.readouterr().out)
    (chip,) = facts["chips"]
    assert chip["name"] == "pudding"
    assert chip["tops"] == 0.819
    assert chip["macs_per_cycle"] == {"value": 512, "provenance": "modelled"}
    assert facts["numpy"].count(".") == 2


def test_show_sdk_info_of_one_chip(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_sdk_info.main(["--soc_version", "Pudding"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["sram_bytes", "524288", "modelled"] for line in lines)
    assert not any("tiramisu" in line for line in lines)


def test_show_sdk_info_of_an_unknown_chip(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_sdk_info.main(["--soc_version", "puding"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: soc_version: unknown chip 'puding'")
    assert not captured.out


# ---- what programs share ---------------------------------------------------------------------------------------------


def raiser(error: BaseException) -> object:
    def body(argv: list[str]) -> int:
        raise error

    return body


@pytest.mark.parametrize(
    ("body", "code", "expected"),
    [
        (lambda argv: None, 0, ""),
        (lambda argv: len(argv), 2, ""),
        (raiser(UserError("is odd", stage="s", file="f")), 2, "error: s: f: is odd\n"),
        (raiser(KeyboardInterrupt()), 130, "interrupted\n"),
        (raiser(SystemExit(0)), 0, ""),
    ],
)
def test_exit_codes(body: object, code: int, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(body, ["a", "b"]) == code  # type: ignore[arg-type]
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), BrokenPipeError("a worker's pipe")])
def test_a_defect_keeps_its_traceback(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raiser(error), []) == 1  # type: ignore[arg-type]
    message = capsys.readouterr().err
    assert "Traceback" in message
    assert "defect of the toolchain" in message


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_is_quiet(unbuffered: str) -> None:
    command = [sys.executable, str(ROOT / "DumpDebug/show_sdk_info.py")]
    pipe = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={"PYTHONUNBUFFERED": unbuffered}
    )
    assert pipe.stdout is not None and pipe.stderr is not None
    pipe.stdout.close()
    assert (pipe.wait(timeout=60), pipe.stderr.read()) == (141, b"")
    pipe.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("options", [[], ["--help"]])
def test_a_full_disk_is_told_in_a_line(options: list[str], unbuffered: str) -> None:
    command = [sys.executable, str(ROOT / "DumpDebug/show_sdk_info.py"), *options]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, env={"PYTHONUNBUFFERED": unbuffered}, timeout=60
        )
    expected = f"error: standard output: cannot be written: {os.strerror(errno.ENOSPC)}\n"
    assert (done.returncode, done.stderr.decode()) == (2, expected)


def test_other_files_that_are_full_are_no_fault_of_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raiser(OSError(errno.ENOSPC, "full")), []) == 1  # type: ignore[arg-type]
    assert "Traceback" in capsys.readouterr().err


def example_parser() -> Parser:
    parser = Parser(prog="tool")
    commands = parser.add_subparsers(dest="platform", required=True)
    onnx = commands.add_parser("onnx")
    onnx.add_argument("-m", "--model", required=True)
    onnx.add_argument("-sth", "--sensitivity_threshold", type=float)
    return parser


def test_good_arguments() -> None:
    options = example_parser().parse_args(["onnx", "-ma.sim", "-sth", "-0.5"])
    assert (options.model, options.sensitivity_threshold) == ("a.sim", -0.5)
    assert example_parser().parse_args(["onnx", "--model=a b.sim"]).model == "a b.sim"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["onnx", "--modle", "x"], ["unknown option --modle", "did you mean --model?", "tool onnx --help"]),
        (["onnx", "--mod", "x"], ["unknown option --mod "]),
        (["onnx", "--model", "", "--input_config="], ["an empty value for --model, --input_config"]),
        (["onnx", "--sensitivity-threshold=1", "-z"], ["did you mean --sensitivity_threshold?", "-z"]),
        (["onnx"], ["required", "--model"]),
        (["onnx", "-m", "x", "-sth", "high"], ["invalid float value: 'high'"]),
        (["onnx", "-m", "x", "stray"], ["unrecognized arguments: stray"]),
        (["caffee"], ["caffee", "onnx"]),
    ],
)
def test_bad_arguments(arguments: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    def body(argv: list[str]) -> None:
        example_parser().parse_args(argv)

    assert run(body, arguments) == 2  # type: ignore[arg-type]
    message = capsys.readouterr().err
    assert message.startswith("error: tool")
    assert [part for part in parts if part not in message] == [], message
