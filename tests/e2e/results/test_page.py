"""The report in a real headless Chromium: no errors, no requests, nothing that overflows, tables that sort."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sst2_ray.results.report import page as report
from tests.support.chromium import EXECUTABLE, Browser, chromium
from tests.support.synthetic_results import MINI, write_study

if EXECUTABLE is None:
    pytest.skip("no Chromium is installed (apt-get install chromium)", allow_module_level=True)

# The page must not scroll sideways, and nothing may stick out of it but what scrolls in a box of its own.
OVERFLOW = """(() => {
  const width = document.documentElement.clientWidth;
  const inBox = (e) => e.closest('.table, nav, figure.wide, svg');
  const out = [...document.querySelectorAll('body *')].filter((e) => !inBox(e) && e.getBoundingClientRect().right > width + 1);
  return [document.documentElement.scrollWidth - width, out.map((e) => e.outerHTML.slice(0, 80))];
})()"""

SVG_TEXT_OUTSIDE = """[...document.querySelectorAll('figure svg')].flatMap((svg) => {
  const box = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter((t) => {
    const r = t.getBoundingClientRect();
    return r.left < box.left - 2 || r.right > box.right + 2 || r.top < box.top - 2 || r.bottom > box.bottom + 2;
  }).map((t) => t.textContent);
})"""

CONTRAST = """(() => {
  const luminance = (c) => {
    const [r, g, b] = c.match(/[\\d.]+/g).map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = luminance(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll('p, li, td, th button, figcaption, a, h1, h2, h3')].filter((e) => e.textContent.trim()).map((e) => {
    const ink = luminance(getComputedStyle(e).color);
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  }).reduce((a, b) => Math.min(a, b));
})()"""

# The column of the accuracy, clicked once and twice; what it is sorted by, and the first cell of each row.
SORT = """(() => {
  const says = (t, ...words) => words.every((word) => t.tHead.textContent.includes(word));
  const table = [...document.querySelectorAll('table')].find((t) => says(t, '#', 'examples/s'));
  const head = [...table.tHead.rows[0].cells].findIndex((c) => c.textContent.trim() === 'examples/s');
  const read = () => [...table.tBodies[0].rows].map((r) => Number(r.cells[head].dataset.sort));
  const button = table.tHead.rows[0].cells[head].querySelector('button');
  button.click(); const once = read();
  button.click(); const twice = read();
  return [once, twice, table.tHead.rows[0].cells[head].getAttribute('aria-sort')];
})()"""

# How far the main tables go on out of sight; how far below the head of its row each reason stands.
CUT = """[...document.querySelectorAll('table')].filter((t) => /why|time a run|trials/.test(t.tHead.textContent) && t.offsetWidth)
  .map((t) => t.parentElement.scrollWidth - t.parentElement.clientWidth)"""
GAPS = """[...document.querySelectorAll('table')].filter((t) => t.tHead.textContent.includes('why')).flatMap((t) => [...t.rows])
  .flatMap((row) => { const why = row.querySelector('td.long'); return why ? [why.offsetTop - row.cells[0].offsetTop] : []; })"""

THEME = """(() => {
  const paper = () => getComputedStyle(document.body).backgroundColor;
  const before = paper(); document.getElementById('theme').click();
  const after = paper(); document.getElementById('theme').click();
  return [before, after, paper()];
})()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report with everything on it: a sweep over three axes, failures, another data set."""
    storage = str(tmp_path_factory.mktemp("study"))
    write_study(
        storage, learning_rates=(4e-5, 8e-5), batch_sizes=(32, 64), weight_decays=(0.0, 0.01), num_seeds=2, epochs=3
    )
    table = write_study(
        storage, experiment="other", models=(MINI,), learning_rates=(1e-4, 3e-4), batch_sizes=(32,), num_seeds=2,
        eval_split="hold-out of rotten-tomatoes", with_failures=False,
    )  # fmt: skip
    out = tmp_path_factory.mktemp("report")
    report.write(report.build(table), str(out))
    return (out / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.mark.parametrize(("width", "dark"), [(400, False), (400, True), (1600, False), (1600, True)])
def test_nothing_overflows_no_errors_no_requests_readable(
    browser: Browser, page: str, width: int, dark: bool, tmp_path: Path
) -> None:
    seen = browser.load(page, width=width, dark=dark, scripts=(OVERFLOW, SVG_TEXT_OUTSIDE, CONTRAST))
    (tmp_path / f"report-{width}-{'dark' if dark else 'light'}.png").write_bytes(seen.screenshot)
    assert seen.problems == []
    assert seen.requests == []
    assert seen.values[0] == [0, []]
    assert seen.values[1] == []
    assert seen.values[2] >= 4.5  # WCAG AA


def test_the_main_tables_fit_a_page_of_1200_pixels(browser: Browser, page: str) -> None:
    cut = browser.load(page, width=1200, scripts=(CUT,)).values[0]
    assert len(cut) >= 4
    assert max(cut) <= 1


def test_on_a_phone_the_reasons_stand_below_their_rows(browser: Browser, page: str) -> None:
    """Beside them they would be out of sight, and the rows as high as the reasons are long."""
    below = browser.load(page, width=400, scripts=(GAPS,)).values[0]
    assert below
    assert min(below) > 10


def test_a_click_on_a_head_sorts_and_a_second_one_turns_it_round(browser: Browser, page: str) -> None:
    once, twice, order = browser.load(page, scripts=(SORT,)).values[0]
    assert len(once) > 4
    assert once == sorted(once, reverse=True)
    assert twice == sorted(twice)
    assert order == "ascending"


def test_the_button_turns_light_into_dark_and_back(browser: Browser, page: str) -> None:
    before, after, again = browser.load(page, scripts=(THEME,)).values[0]
    assert before != after
    assert before == again


def test_the_page_prints(browser: Browser, page: str) -> None:
    assert browser.load(page, dark=True, pdf=True).pdf.startswith(b"%PDF")
