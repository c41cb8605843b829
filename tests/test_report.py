"""The report as files and in a real browser."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from reporthelpers import cells, write_cell, write_sweep

from albert_ablate.errors import ConfigError
from analysis import report as command
from analysis.judge.claims import load_claims
from analysis.read.runs import load_runs
from analysis.report import gather, where
from analysis.write.page import html, markdown, missing, summary

webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a simulated sweep with one failed cell, one on its plateau and a fine-tuned task."""
    root = tmp_path_factory.mktemp("report")
    write_sweep(root / "runs", noise=0.0005, tasks=("sst2", "era"))
    failed = write_cell(root / "runs", cells("table4")[1], 3)
    (failed / "status.json").write_text(json.dumps({"state": "failed", "reason": "<script>alert(1)</script>"}))
    write_cell(root / "runs", cells("table5")[1], 3, left=False)
    assert command.main([str(root / "runs"), "--out", str(root / "out"), "--title", "A <b>small</b> sweep"]) == 0
    return root / "out"


def test_every_file_is_there(written: Path) -> None:
    names = {path.name for path in written.rglob("*") if path.is_file()}
    assert names >= {"index.html", "report.md", "scorecard.csv", "runs.csv", "table4.md", "table4.tex", "table4.csv"}
    assert names >= {"table4-differences.csv", "figure1.svg", "figure1.pdf", "figure1.png", "figure1.csv"}
    runs = pd.read_csv(written / "runs.csv")
    assert len(runs) == 44
    assert runs["tokens_fingerprint"].eq("feed").all()
    scores = pd.read_csv(written / "scorecard.csv")
    assert set(scores["verdict"]) <= {"reproduced", "contradicted", "inconclusive", "not tested"}


def test_a_compact_report_is_whole_and_names_no_folder(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = written.parent / "compact"
    assert command.main([str(written.parent / "runs"), "--out", str(out), "--compact", "--title", "Kept"]) == 0
    assert str(out / "report.md") in capsys.readouterr().out.replace("\n", "")
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".md", ".csv", ".svg"}
    assert {path.name for path in files} >= {"table4.csv", "table4-differences.csv", "figure1.svg", "figure1.csv"}
    assert not (out / "tables" / "table11.csv").exists(), "a table without runs"
    for path in files:
        assert str(written.parent) not in path.read_text(), path
    text = (out / "report.md").read_text()
    assert all((out / name).is_file() for name in re.findall(r"\]\((figures/[^)]+)\)", text))
    assert text.split("\n", 1)[1] == (written / "report.md").read_text().split("\n", 1)[1]


def test_the_page_needs_nothing_from_elsewhere(written: Path) -> None:
    text = (written / "index.html").read_text()
    for found in re.findall(r"""(?:src|href)=["']([^"'#]+)""", text):
        assert found.startswith(("data:", "figures/")), found
        if found.startswith("figures/"):
            assert (written / found).is_file()
    assert "url(http" not in text
    assert "@import" not in text
    assert "<script>alert" not in text
    assert "<b>small</b>" not in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_the_summary_is_three_sentences_of_the_verdicts(written: Path) -> None:
    runs = load_runs(written.parent / "runs")
    found = gather(runs, load_claims())
    sentences = summary(found)
    assert len(sentences) == 3
    assert all(sentence.endswith(".") for sentence in sentences)
    assert "14 arms" in sentences[0]
    reproduced = sum(v.verdict == "reproduced" for v in found.verdicts)
    assert f": {reproduced} reproduced" in sentences[1]
    assert any("failed" in line and "alert" in line for line in missing(found))
    assert any("Table 13" in line and "sweep=table13" in line for line in missing(found))
    text = markdown(found)
    assert text.count("### Table") == 6  # 1 to 5 and 14
    assert "![Learning curves](figures/curves.svg)" in text
    assert (written / "report.md").read_text().split("\n", 1)[1] == text.split("\n", 1)[1]


def test_nothing_finished_is_said(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, cells("table5")[0], 0)
    (folder / "status.json").write_text(json.dumps({"state": "running", "reason": None}))
    found = gather(load_runs(tmp_path), load_claims())
    assert summary(found)[0] == "No run has finished yet."
    assert "Nothing can be judged." in html(found)


def test_conditions_choose_runs(written: Path) -> None:
    runs = load_runs(written.parent / "runs")
    assert set(where(runs, ["share.strategy=all", "seed=1"])["share"]) == {"all"}
    with pytest.raises(ConfigError, match=r"no run has that; budget\.steps is 3500"):
        where(runs, ["budget.steps=1"])
    with pytest.raises(ConfigError, match="give a setting and its value"):
        where(runs, ["budget.steps"])


def test_a_wrong_claims_file_ends_with_words(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(written.parent / "runs"), "--claims", "nowhere.yaml"]) == 2
    assert "nowhere.yaml: no such file" in capsys.readouterr().err


def test_an_upload_takes_tables_and_page(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    from analysis.write.upload import upload

    logged: dict[str, Any] = {}

    class Run:
        def __enter__(self) -> "Run":
            return self

        def __exit__(self, *_: object) -> None:
            logged["ended"] = True

        def log(self, values: dict[str, Any]) -> None:
            logged.update(values)

    monkeypatch.setattr(wandb, "init", lambda **settings: logged.update(settings) or Run())
    upload(gather(load_runs(written.parent / "runs"), load_claims()), written, "mine")
    assert logged["project"] == "mine"
    assert logged["mode"] == "offline"
    assert logged["ended"]
    assert isinstance(logged["table4"], wandb.Table)
    assert len(logged["scorecard"].data) == len(load_claims())


# --- in a browser ---------------------------------------------------------------------------------


@pytest.fixture(params=["light", "dark"])
def browser(request: pytest.FixtureRequest, written: Path) -> Iterator[Any]:
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
    _width(driver, 1200)
    driver.get((written / "index.html").as_uri())
    driver.scheme = request.param
    yield driver
    driver.quit()


def _width(driver: Any, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def test_the_page_works(browser: Any, written: Path) -> None:
    assert browser.get_log("browser") == []
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    channels = [int(part) for part in re.findall(r"\d+", background)[:3]]
    assert (sum(channels) > 600) == (browser.scheme == "light"), background
    measure = "s => [s.getBoundingClientRect().width, s.querySelectorAll('path').length]"
    boxes = browser.execute_script(f"return [...document.querySelectorAll('figure svg')].map({measure})")
    assert len(boxes) == 8
    assert all(width > 300 and paths > 10 for width, paths in boxes)
    _sorts(browser)
    _opens(browser)
    browser.find_element("id", "theme").click()
    flipped = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert flipped != background
    for width in (1200, 390):
        _width(browser, width)
        shown = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert shown[0] <= shown[1] == width
        browser.save_screenshot(str(written / f"{browser.scheme}-{width}.png"))
        assert (written / f"{browser.scheme}-{width}.png").stat().st_size > 10_000
    assert browser.get_log("browser") == []


def _sorts(browser: Any) -> None:
    table = next(t for t in browser.find_elements("css selector", "section table") if "strategy" in t.text)
    heads = table.find_elements("css selector", "thead th")
    place = next(i for i, head in enumerate(heads) if head.text.startswith("MLM") and "loss" not in head.text)
    for expected in ("ascending", "descending"):
        heads[place].find_element("css selector", "button").click()
        assert heads[place].get_attribute("aria-sort") == expected
        cells_of = "return [...arguments[0].tBodies[0].rows].map(r => parseFloat(r.cells[arguments[1]].dataset.sort))"
        values = browser.execute_script(cells_of, table, place)
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
    for words in ("e32-all-sop-nano-s0", "aaaaaaaaaa", "feed", "share.strategy", "seed 2: MLM"):
        assert words in dialog.text, words
    dialog.find_element("css selector", "form button").click()
    assert dialog.get_attribute("open") is None
