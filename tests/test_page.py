"""The report's page in a real browser: what it does, how it prints, and whether everybody can use it."""

import re
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from reporthelpers import write_report

webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
WIDE, PHONE = 1280, 390
BACKGROUND = "return getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("page")) / "index.html"


@pytest.fixture(params=["light", "dark"])
def browser(request: pytest.FixtureRequest, page: Path) -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    scheme = [{"name": "prefers-color-scheme", "value": request.param}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    _width(driver, WIDE)
    driver.get(page.as_uri())
    driver.scheme = request.param
    yield driver
    assert driver.get_log("browser") == []
    driver.quit()


def _width(driver: Any, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def test_figures_sorting_and_provenance_work(browser: Any) -> None:
    measure = "s => [s.getBoundingClientRect().width, s.querySelectorAll('path').length]"
    boxes = browser.execute_script(f"return [...document.querySelectorAll('figure svg')].map({measure})")
    assert len(boxes) == 8
    assert all(width > 300 and paths > 10 for width, paths in boxes)
    _sorts(browser)
    _opens(browser)


def _sorts(browser: Any) -> None:
    table = next(t for t in browser.find_elements("css selector", "section table") if "strategy" in t.text)
    head = next(
        h for h in table.find_elements("css selector", "th[data-column]")
        if h.text.startswith("MLM") and "loss" not in h.text
    )  # fmt: skip
    for expected in ("ascending", "descending"):
        head.find_element("css selector", "button").click()
        assert head.get_attribute("aria-sort") == expected
        cells_of = "return [...arguments[0].tBodies[0].rows].map(r => parseFloat(r.cells[arguments[1]].dataset.sort))"
        values = browser.execute_script(cells_of, table, int(head.get_attribute("data-column")))
        assert values == sorted(values, reverse=expected == "descending")
        assert len(set(values)) > 4


def _opens(browser: Any) -> None:
    number = next(
        n for n in browser.find_elements("css selector", "section button.number")
        if n.get_attribute("data-arm") == "table4.5" and n.get_attribute("data-score") == "MLM"
    )  # fmt: skip
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", number)
    number.click()
    dialog = browser.find_element("id", "provenance")
    assert dialog.get_attribute("open") is not None
    for words in (
        "e32-all-sop-nano-s0",
        "aaaaaaaaaa",
        "feed",
        "share.strategy",
        "seed 2: MLM",
        "python run.py scale=cpu",
    ):
        assert words in dialog.text, words
    copy = dialog.find_element("css selector", "button.copy")
    copy.click()
    assert copy.text == "Copied"
    dialog.find_element("css selector", "form button").click()
    assert dialog.get_attribute("open") is None


def test_chips_filter_the_scorecard(browser: Any) -> None:
    rows = "[...document.querySelectorAll('#claims [data-verdict]')]"
    shown = f"return {rows}.filter(row => row.offsetParent).map(row => row.dataset.verdict)"
    whole = browser.execute_script(shown)
    chips = {chip.get_attribute("data-verdict"): chip for chip in browser.find_elements("css selector", "button.chip")}
    folded = browser.execute_script("return document.querySelectorAll('#untested [data-verdict]').length")
    counts = {name: whole.count(name) for name in chips} | {"not tested": folded}
    assert {name: int(chip.text.split()[0]) for name, chip in chips.items()} == counts
    assert folded > 0
    chosen = next(name for name in chips if 0 < whole.count(name) < len(whole))
    chips[chosen].click()
    assert set(browser.execute_script(shown)) == {chosen}
    assert chips[chosen].get_attribute("aria-pressed") == "true"
    assert f"{whole.count(chosen)} of {len(whole) + folded}" in browser.find_element("id", "shown").text
    browser.execute_script("arguments[0].scrollIntoView()", chips[chosen])
    chips[chosen].click()
    assert browser.execute_script(shown) == whole
    chips["not tested"].click()
    assert browser.find_element("id", "untested").get_attribute("open") is not None
    assert browser.execute_script(shown) == []


def test_the_theme_is_told_and_kept(browser: Any, page: Path) -> None:
    background = browser.execute_script(BACKGROUND)
    channels = [int(part) for part in re.findall(r"\d+", background)[:3]]
    assert (sum(channels) > 600) == (browser.scheme == "light"), background
    other = "dark" if browser.scheme == "light" else "light"
    assert browser.find_element("id", "theme").text == "Theme: auto"
    browser.find_element("id", "theme").click()
    flipped = browser.execute_script(BACKGROUND)
    assert flipped != background
    browser.get(page.as_uri())
    assert browser.find_element("id", "theme").text == f"Theme: {other}"
    assert browser.execute_script(BACKGROUND) == flipped


def test_no_table_or_figure_widens_the_page(browser: Any) -> None:
    for width in (WIDE, PHONE):
        _width(browser, width)
        content, window = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert content <= window == width
        spills = "b => b.scrollWidth > b.clientWidth && (b.tabIndex !== 0 || !b.getAttribute('aria-label'))"
        assert browser.execute_script(f"return [...document.querySelectorAll('.wide')].filter({spills}).length") == 0


def test_axe_finds_no_violation(browser: Any) -> None:
    axe = resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    browser.set_script_timeout(150)
    browser.execute_script(axe)
    for width in (WIDE, PHONE):
        _width(browser, width)
        run = "axe.run({resultTypes: ['violations']}).then(arguments[0])"
        result = browser.execute_async_script(run)
        assert len(result["passes"]) > 20
        browser.execute_script("document.querySelectorAll('details').forEach(node => node.open = true)")
        assert [(rule["id"], rule["nodes"][0]["html"]) for rule in result["violations"]] == []


def test_what_a_finger_presses_is_24_pixels_high_and_tables_have_names(browser: Any) -> None:
    _width(browser, PHONE)
    small = "b => b.offsetParent && b.getBoundingClientRect().height < 24"
    assert (
        browser.execute_script(
            f"return [...document.querySelectorAll('button, summary, nav a')].filter({small}).length"
        )
        == 0
    )
    captions = browser.execute_script("return [...document.querySelectorAll('table')].map(t => t.caption?.textContent)")
    assert len(captions) > 15
    assert None not in captions
    assert len(set(captions)) == len(captions)
    figures = browser.execute_script("return [...document.querySelectorAll('figure')].map(f => f.textContent)")
    assert all(re.search(r"\d", text) for text in figures)
    parts = "s => [s.getAttribute('role'), s.querySelector('title')?.textContent]"
    named = browser.execute_script(f"return [...document.querySelectorAll('figure svg')].map({parts})")
    assert len(named) == len(figures)
    assert all(role == "img" and title for role, title in named)


def test_print_hides_controls_and_keeps_sizes_in_order(browser: Any) -> None:
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    size = "return parseFloat(getComputedStyle(document.querySelector(arguments[0])).fontSize)"
    ours, papers, note = (browser.execute_script(size, where) for where in ("td.num", "td.paper", ".minor"))
    assert ours == papers > note
    arrow = "return getComputedStyle(document.querySelector('thead button'), '::after').display"
    assert browser.execute_script(arrow) == "none"
    assert browser.execute_script("return document.querySelector('nav').offsetParent") is None
    channels = re.findall(r"\d+", browser.execute_script(BACKGROUND))
    assert channels == ["255", "255", "255"], "dark paper"
