"""The report in a real browser: it renders, sorts, filters, is used by keyboard, and fetches nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import Browser, chromium
from report_cases import HOSTILE, name_of, whole_report
from sgs.report.report_page import report_text

LAYERS = 500
TAB, ENTER, RIGHT, END, HOME = "\ue004", "\ue007", "\ue014", "\ue010", "\ue011"  # as WebDriver names keys


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything, of a small network."""
    file = tmp_path_factory.mktemp("page ü") / "report of x.html"
    file.write_text(report_text(whole_report(40)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("large") / "report.html"
    file.write_text(report_text(whole_report(LAYERS, chain=LAYERS)), encoding="utf-8")
    return file


def column(browser: Browser, heading: str, table: str = "tensors") -> list[str]:
    """The cells below a heading that are in sight, from the top."""
    script = """
        const table = document.getElementById(arguments[0]);
        const at = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent === arguments[1]);
        return [...table.tBodies[0].rows].filter(row => row.offsetParent).map(row => row.cells[at].textContent);"""
    found = browser.run(script, table, heading)
    assert isinstance(found, list)
    return [str(cell) for cell in found]


def head(heading: str, table: str = "tensors") -> str:
    return f"[...document.querySelectorAll('#{table} thead button')].find(one => one.textContent === '{heading}')"


def test_it_renders_and_fetches_nothing(browser: Browser, page: Path) -> None:
    browser.open(page)
    headings = browser.run("return [...document.querySelectorAll('h2')].map(one => one.textContent)")
    assert headings[:4] == ["Summary", "Pictures", "Causes and remedies", "Errors by layer"]
    sizes = browser.run("return [...document.images].map(one => [one.complete, one.naturalWidth])")
    assert sizes == [[True, 8]] * 4
    flat = "return [...document.querySelectorAll('svg')].filter(one => one.getBoundingClientRect().height < 40).length"
    assert browser.run("document.querySelectorAll('details').forEach(one => one.open = true);" + flat) == 0
    assert browser.run("return document.title") == "network <x>"
    assert HOSTILE in column(browser, "layer") and browser.run("return document.querySelectorAll('td b').length") == 0
    assert browser.complaints() == [] and browser.requests() == []


def test_the_policy_stops_what_would_be_fetched(browser: Browser, page: Path, tmp_path: Path) -> None:
    """And the log of requests, which the test above relies on, would show it."""
    bad = tmp_path / "bad.html"
    text = page.read_text("utf-8").replace("</main>", '<img src="http://127.0.0.1:9/a.png"></main>')
    bad.write_text(text, encoding="utf-8")
    browser.open(bad)
    assert any("Content Security Policy" in line for line in browser.complaints())
    bad.write_text(re.sub("<meta http-equiv[^>]*>", "", text), encoding="utf-8")
    browser.open(bad)
    assert "http://127.0.0.1:9/a.png" in browser.requests() and browser.complaints()


def test_a_heading_sorts(browser: Browser, page: Path) -> None:
    browser.open(page)
    before = column(browser, "so far")
    browser.run(f"{head('so far')}.click()")
    down = [float(cell) for cell in column(browser, "so far")]
    assert down == sorted(map(float, before), reverse=True) != [float(cell) for cell in before]
    browser.run(f"{head('so far')}.click()")
    assert [float(cell) for cell in column(browser, "so far")] == down[::-1]
    sorts = "return [...document.querySelectorAll('#tensors th')].map(one => one.getAttribute('aria-sort'))"
    assert [one for one in browser.run(sorts) if one] == ["ascending"]
    for _ in range(2):  # what was not measured comes last both ways
        browser.run(f"{head('alone')}.click()")
        assert column(browser, "alone")[-8:] == ["–"] * 8
    browser.run(f"{head('layer')}.click()")
    names = [name for name in column(browser, "layer") if name != HOSTILE]
    assert names == [name_of(n) for n in range(40) if n != 1], "numbers in names count as numbers"


def test_a_search_filters(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run("document.getElementById('tensors-find').focus()")
    browser.press(*"concat BLOCKS.3")
    assert column(browser, "layer") == [name_of(n) for n in (34, 39)]
    status = "return document.querySelector('.listing .count').textContent"
    assert browser.run(status) == "2 of 40 layers"
    assert len(column(browser, "layer", "layers")) == 6, "the other table is as it was"
    browser.follow("tensors-7")
    assert browser.run(status) == "40 of 40 layers", "a link to a row that is hidden shows it"


def test_it_is_used_by_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.press(TAB)
    assert browser.focus == "Skip to the report"
    browser.press(ENTER)
    assert browser.run("return document.activeElement.id") == "main"
    for _ in range(3):  # the frame of the chart, its first mark, the search
        browser.press(TAB)
        if browser.run("return document.activeElement.closest('.marks') !== null"):
            break
    assert name_of(0) in browser.focus
    browser.press(RIGHT)
    assert HOSTILE in browser.focus
    browser.press(END)
    assert name_of(39) in browser.focus
    browser.press(ENTER)
    assert browser.run("return document.querySelector('tr:target').id") == "tensors-39"
    browser.run(f"{head('cosine')}.focus()")
    outlined = browser.run("return getComputedStyle(document.activeElement).outlineStyle")
    browser.press(ENTER)
    cells = [float(cell) for cell in column(browser, "cosine")]
    assert cells == sorted(cells, reverse=True) and outlined == "solid"


@pytest.mark.parametrize("dark", [False, True])
def test_words_stand_out(dark: bool, browser: Browser, page: Path) -> None:
    """Contrast of at least 4.5 of all text, as WCAG 2 has it, with the background that is there."""
    browser.open(page, dark=dark)
    script = """
        const channels = colour => colour.match(/[\\d.]+/g).map(Number);
        const light = colour => {
          const [r, g, b] = channels(colour).map(v => v / 255).map(v => v <= .04045 ? v / 12.92
            : ((v + .055) / 1.055) ** 2.4);
          return .2126 * r + .7152 * g + .0722 * b;
        };
        const behind = one => {
          for (; one; one = one.parentElement) {
            const colour = getComputedStyle(one).backgroundColor;
            if ((channels(colour)[3] ?? 1) > 0) return colour;
          }
        };
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), poor = [];
        let seen = 0;
        for (let node; node = walker.nextNode();) {
          const one = node.parentElement, style = getComputedStyle(one);
          if (!node.data.trim() || ["SCRIPT", "TITLE"].includes(one.tagName.toUpperCase())) continue;
          const ink = one instanceof SVGElement ? style.fill : style.color;
          const [a, b] = [light(ink), light(behind(one))].sort((x, y) => y - x);
          seen++;
          if ((a + .05) / (b + .05) < 4.5) poor.push([node.data, ink, behind(one), (a + .05) / (b + .05)]);
        }
        return [seen, light(getComputedStyle(document.body).backgroundColor), poor];"""
    seen, back, poor = browser.run(script)
    assert poor == [] and seen > 500
    assert (back < 0.05) == dark


@pytest.mark.parametrize("width", [380, 768, 1920])
def test_nothing_is_wider_than_the_window(width: int, browser: Browser, page: Path) -> None:
    browser.open(page, width=width)
    browser.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    wide, inner = browser.run("return [document.documentElement.scrollWidth, innerWidth]")
    assert inner == width and wide <= width
    table, inside = browser.run("const t = document.querySelector('.table'); return [t.scrollWidth, t.clientWidth]")
    assert inside <= width and (table > inside or width > 768), "a wide table scrolls in its frame"


def test_it_is_read_without_scripts(browser: Browser, page: Path) -> None:
    browser.open(page, scripts=False)
    shown = browser.command("DOM.getDocument", depth=0)["root"]["nodeId"]
    rows = browser.command("DOM.querySelectorAll", nodeId=shown, selector="#tensors tbody tr")["nodeIds"]
    search = browser.command("DOM.querySelector", nodeId=shown, selector=".search")["nodeId"]
    style = browser.command("CSS.enable") or browser.command("CSS.getComputedStyleForNode", nodeId=search)
    displays = [one["value"] for one in style["computedStyle"] if one["name"] == "display"]
    assert len(rows) == 40 and displays == ["none"], "what needs scripts is not offered"
    browser.command("Emulation.setScriptExecutionDisabled", value=False)


def test_a_large_network(browser: Browser, large: Path) -> None:
    """The time is told, not judged: machines differ."""
    browser.open(large)
    loaded = browser.run("const [entry] = performance.getEntriesByType('navigation'); return entry.loadEventEnd")
    print(f"\n{LAYERS} layers: {large.stat().st_size / 1e6:.2f} MB, loaded in {loaded:.0f} ms")
    assert loaded > 0 and large.stat().st_size < 1_050_000
    browser.run(f"{head('so far')}.click()")
    assert len(column(browser, "layer")) == LAYERS
    browser.run("document.getElementById('tensors-find').value = 'blocks.49/'")
    browser.run("document.getElementById('tensors-find').dispatchEvent(new Event('input'))")
    assert len(column(browser, "layer")) == 10
    assert browser.complaints() == [] and browser.requests() == []
