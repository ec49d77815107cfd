"""Pages for users, and what the code cites of them: links lead somewhere, equations are there, each once."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from string import Template

import pytest

from conventions import ROOT

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "schema/README.md", ROOT / "SGS_Models/README.md"]
PAGES += (ROOT / "Scripts").rglob("*.md")
NUMERICS = (ROOT / "docs/NUMERICS.md").read_text("utf-8")


def prose(page: Path) -> str:
    """Without blocks of code, whose comments look like headings."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        name = re.sub(r"[^\w -]", "", re.sub(r"\]\([^)]*\)", "", heading).strip().lower()).replace(" ", "-")
        again = sum(re.fullmatch(rf"{re.escape(name)}(-\d+)?", other) is not None for other in found)
        found.append(f"{name}-{again}" if again else name)
    return set(found)


def dead_links(page: Path) -> list[str]:
    """Relative links to files, folders and headings that are not there."""
    dead = []
    for link in re.findall(r"\]\(<?([^)>\s]+)>?\)", prose(page)):
        target, _, anchor = link.partition("#")
        file = page.parent / target if target else page
        if not re.match(r"\w+:", link) and (not file.exists() or (anchor and anchor not in anchors(file))):
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page: str) -> None:
    assert dead_links(ROOT / page) == []


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# One, two\n## [x](b.md) y\n# One, two\n```sh\n# three\n```\n", "utf-8")
    links = (
        "a.md a.md#one-two a.md#one-two-1 a.md#x-y #here https://x.y/z#q a.md#three a.md#one-two-2 b.md #there ../none/"
    )
    (tmp_path / "c.md").write_text("# Here\n" + "".join(f"[l]({link})\n" for link in links.split()), "utf-8")
    assert dead_links(tmp_path / "c.md") == ["a.md#three", "a.md#one-two-2", "b.md", "#there", "../none/"]


# -- commands ----------------------------------------------------------------------------------------------------------
def commands() -> Iterator[tuple[str, list[str]]]:
    """(page, words) of every line of the pages' shell blocks, variables put in; all are for the top of the tree."""
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
            variables: dict[str, str] = {}
            for line in block.replace("\\\n", " ").splitlines():
                words = [Template(word).substitute(variables) for word in shlex.split(line, comments=True)]
                while words and (match := re.fullmatch(r"([A-Z]+)=(.*);?", words[0])):
                    variables[match[1]] = match[2].rstrip(";")
                    words = words[1:]
                if words:
                    yield str(page.relative_to(ROOT)), words


def takes(words: list[str], options: set[str]) -> set[str]:
    """Those of the options that a command's program has: by the help of a tool, by the text of an example, and of what
    the scripts of the shipped models have in common."""
    program = words[1]
    text = (ROOT / program).read_text("utf-8")
    if program.startswith("SGS_Models/"):
        text += (ROOT / "SGS_Models/resource/runners.py").read_text("utf-8")
    tool = re.search(r"from sgs\.cli\.(\w+) import main", text)
    if tool is not None:
        with redirect_stdout(StringIO()) as out:
            main = importlib.import_module(f"sgs.cli.{tool[1]}").main
            assert main([*(words[2:3] if "/ConvertTool/" in program else []), "--help"]) == 0
        return options & set(re.findall(r"(?<![\w-])--?\w[\w-]*", out.getvalue()))
    return {option for option in options if f'"{option}"' in text}


def test_commands_of_the_pages_name_what_there_is() -> None:
    """Programs, options, and what they read of the tree."""
    wrong, programs = [], set()
    for page, words in commands():
        wrong += [f"{page}: {word}" for word in words if word.startswith("SGS_Models/") and not (ROOT / word).exists()]
        wrong += [f"{page}: {' '.join(words)}: leaves the top of the tree" for word in words[:1] if word == "cd"]
        if words[0] != "python":
            continue
        programs.add(words[1])
        given = {word for word in words[2:] if re.match(r"--?[a-zA-Z]", word)}
        wrong += [f"{page}: {words[1]} {option}" for option in sorted(given - takes(words, given))]
    assert wrong == []
    assert len(programs) >= 9


# -- what is cited -----------------------------------------------------------------------------------------------------
CITED = re.compile(r"\beq(?:uation)?s?\.?\s+\(?(\d+(?:(?:\)?\s*(?:,|-|–|and|or)\s*\(?)\d+)*)", re.IGNORECASE)


def cited(text: str) -> set[int]:
    """Numbers of the equations that a text names: eq. 4, Eq. 9-11, equations 6 and 7."""
    found: set[int] = set()
    for numbers in CITED.findall(text):
        for span in re.split(r",|and|or", numbers):
            ends = [int(number) for number in re.findall(r"\d+", span)]
            found |= set(range(ends[0], ends[-1] + 1))
    return found


def test_equations_are_numbered_in_their_order() -> None:
    numbers = [int(number) for number in re.findall(r"^\*\*\((\d+)\)\*\*", NUMERICS, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= 17
    assert cited(NUMERICS) <= set(numbers)


def test_what_is_cited_of_the_arithmetic_exists() -> None:
    assert cited("Eq. 9-11, eq. 3, 5 of x; equations 6 and (8): in 32") == {3, 5, 6, 8, 9, 10, 11}
    equations = len(re.findall(r"^\*\*\((\d+)\)\*\*", NUMERICS, re.MULTILINE))
    sections = {int(number) for number in re.findall(r"^## (\d+)\.", NUMERICS, re.MULTILINE)}
    wrong, seen = [], set()
    for file in sorted([*(ROOT / "Scripts").rglob("*.py"), *(ROOT / "docs").glob("*.md")]):
        text = file.read_text("utf-8")
        found = cited(text) if file.suffix == ".py" else set()
        seen |= found
        wrong += [f"{file.name}: eq. {number}" for number in found if not 1 <= number <= equations]
        places = {int(number) for number in re.findall(r"NUMERICS(?:\.md)?(?:\]\([^)]*\))? §(\d+)", text)}
        wrong += [f"{file.name}: §{number}" for number in places - sections]
    assert wrong == []
    assert {4, 7, 12, 17} <= seen


def test_the_code_cites_the_equation_that_it_computes() -> None:
    """Operators with an equation of their own, by the words around it."""
    told = {
        "nv12": "R = clip(",
        "normalise": "μ = S1 / n",
        "lrn": "alpha · (s · s)",
        "roi_align": "half_pixel",
        "roi_max_pool": "last = round(",
    }
    for name, words in told.items():
        (number,) = re.findall(rf"^\*\*\((\d+)\)\*\*[^\n]*{re.escape(words)}", NUMERICS, re.MULTILINE)
        assert int(number) in cited((ROOT / f"Scripts/sgs/ops/{name}.py").read_text("utf-8")), name
