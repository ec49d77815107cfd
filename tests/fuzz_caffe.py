"""Damaged Caffe networks by the thousand: ConvertTool converts each or refuses it (exit code 0 or 2); nothing crashes,
hangs, or takes much memory.

usage: python tests/fuzz_caffe.py [--files 1000] [--seed 0] [--jobs 2]

A network is made from a small one, by its number and the seed alone; of its two files one is damaged, or both:

    words     words of the prototxt changed: numbers, names, types, fields; lines gone or doubled
    bytes     bits, bytes or blocks of the prototxt changed, or its end cut off
    weights   the same of the caffemodel
    both      bytes of both

What is found is printed with the number of the network; `--only NUMBER` tries that one here. The exit code is 1 when
there was anything.
"""

from __future__ import annotations

import random
import re
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "Scripts"), str(ROOT / "tests")]

from caffe_cases import CASES, Case, Shape, weight_file  # noqa: E402
from fuzzing import Fuzz, cut, exit_code, flip  # noqa: E402
from raw_chain import ini  # noqa: E402
from sgs.cli import convert_tool  # noqa: E402
from sgs.frontends.caffe.context import CAFFE  # noqa: E402
from sgs.frontends.caffe.generated import LayerParameter  # noqa: E402
from sgs.frontends.caffe.platform import load_caffe  # noqa: E402
from sgs.frontends.platforms import Asked  # noqa: E402

KINDS = ("words", "words", "bytes", "weights", "words", "both")
NUMBERS = ("0", "1", "-1", "2", "3", "64", "65535", "1000000", "2147483647", "4294967295", "-2147483648", "1e30", "nan")
FIELDS = tuple(LayerParameter.DESCRIPTOR.fields_by_name)
WORD = re.compile(r'"[^"\n]*"|[\w.+-]+|[{}\[\]:,]')
ALL = tuple((kind, index) for kind, rows in CASES.items() for index in range(len(rows)))


# -- originals ---------------------------------------------------------------------------------------------------------
def drawn(rng: random.Random) -> Case:
    """A case, often with layers behind it that take whatever there is."""
    kind, index = rng.choice(ALL)
    case = CASES[kind][index]
    if rng.random() < 0.6 or kind in ("Reduction", "Silence"):  # of a result without axes, or without any
        return case
    plain = rng.sample(["ReLU", "Sigmoid", "Power", "Flatten", "Dropout", "Softmax", "AbsVal", "TanH"], 3)
    more = "".join(f'layer {{ name: "m{i}" type: "{kind}" bottom: "y0" top: "y0" }}\n' for i, kind in enumerate(plain))
    return Case(case.text + more, case.inputs, case.weights)


@cache
def outputs_of(text: str, weights: bytes, shapes: tuple[Shape, ...]) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory(prefix="sgs_fuzz_") as folder:
        files = Path(folder, "a.prototxt"), Path(folder, "a.caffemodel")
        files[0].write_text(text, encoding="utf-8")
        files[1].write_bytes(weights)
        return tuple(port.name for port in load_caffe(*files, Asked(shapes=shapes)).outputs)


# -- damage ------------------------------------------------------------------------------------------------------------
def words(data: bytes, rng: random.Random) -> bytes:
    """The prototxt with one to three of its words, or lines, otherwise."""
    text = data.decode()
    for _ in range(rng.choice([1, 1, 2, 3])):
        found = list(WORD.finditer(text))
        if not found:
            break
        if rng.random() < 0.15:
            lines = text.splitlines(keepends=True)
            lines.insert(rng.randrange(len(lines)), rng.choice(lines))
            if rng.random() < 0.6:
                lines.pop(rng.randrange(len(lines)))
            text = "".join(lines)
            continue
        match = rng.choice(found)
        text = text[: match.start()] + other_word(match[0], found, rng) + text[match.end() :]
    return text.encode()


def other_word(word: str, found: list[re.Match[str]], rng: random.Random) -> str:
    how = rng.random()
    if how < 0.1:
        return ""
    if how < 0.3:
        return rng.choice(found)[0]
    if word[0] == '"':
        return rng.choice(['""', f'"{rng.choice(list(CAFFE))}"', '"x0"', '"y0"', '"' + "n" * 3000 + '"', '"\\377"'])
    if word[0].isdigit() or word[0] in "-+.":
        return rng.choice(NUMBERS)
    return rng.choice([*FIELDS, "true", "MAX", "{", "}", "<", "dim", "axis"])


def damaged(data: bytes, rng: random.Random) -> bytes:
    return cut(data, rng) if rng.random() < 0.2 else flip(data, rng)


def make_case(seed: int, index: int) -> tuple[Case, bytes, bytes]:
    """(original, prototxt, caffemodel) number `index` of a campaign."""
    rng = random.Random(f"{seed} {index}")
    case, kind = drawn(rng), KINDS[index % len(KINDS)]
    text, weights = case.text.encode(), weight_file(case.text, case.weights)
    if kind == "words":
        text = words(text, rng)
    if kind in ("bytes", "both"):
        text = damaged(text, rng)
    if kind in ("weights", "both"):
        weights = damaged(weights, rng)
    return case, text, weights


# -- one network -------------------------------------------------------------------------------------------------------
def settings(case: Case) -> str:
    """An ini that takes whatever the original's inputs and outputs are."""
    given = {"training_input_formats": "RAWDATA_F32_NHWC", "input_formats": "RAWDATA_F32_NHWC", "quantizations": "TRUE"}
    outputs = outputs_of(case.text, weight_file(case.text, case.weights), tuple(case.inputs.values()))
    return ini(dict.fromkeys(case.inputs, given), dict.fromkeys(outputs, {"dequantizations": "TRUE"}))


def try_one(seed: int, index: int) -> str:
    """What ConvertTool makes of network number `index`: converted or refused. Raises Finding for anything else."""
    case, text, weights = make_case(seed, index)
    with tempfile.TemporaryDirectory(prefix="sgs_fuzz_") as folder:
        named: dict[str, tuple[str, bytes]] = {
            "model_file": ("damaged.prototxt", text),
            "weight_file": ("damaged.caffemodel", weights),
            "input_config": ("damaged.ini", settings(case).encode()),
        }
        options = [f"--output_file={folder}", "--soc_version=pcupid", "--skip_simplify"]
        for option, (name, data) in named.items():
            Path(folder, name).write_bytes(data)
            options.append(f"--{option}={Path(folder, name)}")
        shapes = ":".join(",".join(map(str, shape)) for shape in case.inputs.values())
        asked = [f"--input_shapes={shapes}"] if index % 2 else []
        code = exit_code(convert_tool.main, ["caffe", *options, *asked])
    return "refused" if code else "converted"


FUZZ = Fuzz(
    script=__file__,
    kinds=KINDS,
    outcomes=("refused", "converted"),
    prepare=lambda: try_one(0, 1),
    try_one=try_one,
    memory=2 << 30,
    growth=512 << 20,
)

if __name__ == "__main__":
    sys.exit(FUZZ.main("Damaged Caffe networks against ConvertTool.", files=1000))
