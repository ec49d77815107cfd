"""Pages for users, and what the code cites of them: links lead somewhere, equations are there, each once."""

from __future__ import annotations

import importlib
import re
import runpy
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from conventions import RANK, ROOT, project_files
from doc_commands import PAGES, Block, Reader, blocks

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
def unsure_blocks() -> list[Block]:
    """Shell blocks that are not run everywhere."""
    return [block for page in PAGES for block in blocks(page) if block.language == "sh" and block.mark]


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


def test_commands_that_are_not_run_name_what_there_is() -> None:
    """Programs, options, and what they read of the tree."""
    wrong, programs = [], set()
    for page, words in ((block.page, words) for block in unsure_blocks() for _, words in block.commands()):
        wrong += [f"{page}: {word}" for word in words if word.startswith("SGS_Models/") and not (ROOT / word).exists()]
        if words[0] != "python":
            continue
        programs.add(words[1])
        given = {word for word in words[2:] if re.match(r"--?[a-zA-Z]", word)}
        wrong += [f"{page}: {words[1]} {option}" for option in sorted(given - takes(words, given))]
    assert wrong == []
    assert len(programs) >= 4


def test_every_command_of_the_pages_runs(tmp_path: Path) -> None:
    """In the order of the pages, in one tree, so that what one page makes is there for the next."""
    before = project_files()
    reader = Reader(tmp_path / "tree")
    wrong = []
    for page in PAGES:
        if not changes_the_tree(page):
            wrong += [fault for block in blocks(page) for fault in reader.does(block)][:1]
    assert wrong == [], "\n\n".join(wrong)
    made = tmp_path / "pictures"
    made.mkdir()
    runpy.run_path(str(ROOT / "docs/pictures/make.py"))["main"](reader.folder / "build/shapes", made)
    there = {picture.name for picture in (ROOT / "docs/pictures").glob("*.*") if picture.suffix != ".py"}
    assert {"detections.jpg", "histogram.svg"} <= {one.name for one in made.iterdir()} <= there - {"pipeline.svg"}
    assert project_files() == before


def test_pictures_are_small_and_shown() -> None:
    pages = "".join(page.read_text("utf-8") for page in PAGES)
    for picture in (ROOT / "docs/pictures").glob("*.*"):
        assert picture.stat().st_size <= 150_000 and (picture.suffix == ".py" or f"pictures/{picture.name}" in pages)


@pytest.mark.parametrize("page", ["docs/ADD_AN_OPERATOR.md", "docs/ADD_A_CHIP.md"])
def test_commands_of_pages_that_change_the_tree_run(page: str, tmp_path: Path) -> None:
    assert changes_the_tree(ROOT / page)
    reader = Reader(tmp_path / "tree", copied=("Scripts", "DumpDebug"))
    assert [fault for block in blocks(ROOT / page) for fault in reader.does(block)] == []


def changes_the_tree(page: Path) -> bool:
    return any((block.file or "").startswith("Scripts/") for block in blocks(page))


def test_commands_stand_in_shell_blocks() -> None:
    """Else nobody runs them."""
    wrong = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for block in blocks(page):
            if block.language != "sh" and re.search(r"^(python|make|pip) ", block.text, re.MULTILINE):
                wrong.append(f"{block.page}: a block of '{block.language}': {block.text}")
        wrong += [f"{page.name}: {line}" for line in re.findall(r"^ {4}(?:python|make|pip) .*", text, re.MULTILINE)]
    assert wrong == []


def test_what_a_page_says_wrong_is_noticed(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "tree")
    show = "python DumpDebug/show_sdk_info.py"
    assert reader.does(Block("a.md", "sh", f"{show} --soc_version pcupid\n{show} --json > sdk.json\n")) == []
    assert (tmp_path / "tree/sdk.json").stat().st_size > 1000
    (fault,) = reader.does(Block("a.md", "sh", f"{show} --soc_version pudding1\ntouch never\n"))
    assert "exit code 2" in fault and "pudding1" in fault and not (tmp_path / "tree/never").exists()
    (fault,) = reader.does(Block("a.md", "sh", "cat nothing | wc\n"))
    assert "exit code 1" in fault
    assert reader.does(Block("a.md", "sh", "false\n", ("needs", "no_such_package"))) == []
    assert reader.does(Block("a.md", "sh", "false\n", ("not run",))) == []
    assert reader.does(Block("a.md", "json", "[1]\n", ("file", "x/y.json"))) == []
    assert (tmp_path / "tree/x/y.json").read_text("utf-8") == "[1]\n"


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


# -- the architecture --------------------------------------------------------------------------------------------------
def test_the_layers_are_told_as_they_are() -> None:
    """Every layer once, in the order in which they may import each other."""
    page = (ROOT / "docs/ARCHITECTURE.md").read_text("utf-8")
    rows = re.findall(r"^\| (`.*?) \|", page.partition("<!-- layers -->")[2].partition("\n## ")[0], re.MULTILINE)
    told = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(told) == sorted(RANK)
    assert [RANK[name] for name in told] == sorted(RANK[name] for name in told)


def test_the_files_that_the_architecture_names_are_there() -> None:
    page = (ROOT / "docs/ARCHITECTURE.md").read_text("utf-8").partition("## Where to look")[2]
    named = re.findall(r"`([\w/]+\.py)`", page)
    assert len(named) >= 5
    assert [file for file in named if not any((ROOT / top / file).is_file() for top in ("Scripts/sgs", "."))] == []
