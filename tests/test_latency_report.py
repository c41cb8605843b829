"""Recorded latencies in a report: columns, claims, machines that are kept apart; the audit derives them again."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from reporthelpers import cells, write_cell
from runhelpers import ROOT, run, tiny_config

sys.path.insert(0, str(ROOT))

from albert_ablate.record.latency import LATENCY
from analysis import audit, report
from analysis.judge.claims import MOBILEBERT as CLAIMS
from analysis.judge.claims import Verdict, judge, load_claims
from analysis.judge.metrics import unfit
from analysis.read.runs import load_runs
from analysis.recount.checks import DISAGREES
from analysis.write.costs import costs, latency_note
from benchmarks import latency

ORDER = ("mobile-latency-relu", "mobile-latency-norm", "mobile-latency-gelu")
#: (norm, activation) -> milliseconds in the paper's order, Table 7.
PAPER = {
    ("no_norm", "relu"): 62,
    ("no_norm", "gelu_tanh"): 92,
    ("layer_norm", "relu"): 167,
    ("layer_norm", "gelu_tanh"): 192,
}


def simulated(root: Path, law: Mapping[tuple[str, str], float], cpu: str = "a processor", seeds: int = 3) -> Path:
    """The students of the sweep with latencies."""
    for number, terms in enumerate(cells("mobilebert_table_operational")[:4]):
        for seed in range(seeds):
            folder = write_cell(root, terms, seed)
            settings = yaml.safe_load((folder / "config.yaml").read_text())
            for key, value in terms.items():
                group, _, name = key.partition(".")
                if name and group in settings:
                    settings[group][name] = value
            settings["block"] = {"type": "mobilebert"}
            settings["method"]["start"] = "teacher"  # as method=mobilebert sets it
            (folder / "config.yaml").write_text(yaml.safe_dump(settings))
            took = law[terms["model.norm_type"], terms["model.activation"]] * (1 + 0.001 * ((seed * 7 + number) % 5))
            timings = [
                {"form": form, "threads": 1, "sequences": 1, "length": length, "milliseconds": took * length / 128,
                 "interval": [took * length / 128 - 0.1, took * length / 128 + 0.1]}
                for form in ("eager", "onnx") for length in (64, 128, 512)
            ]  # fmt: skip
            machine = {"cpu": cpu, "processors": 2, "torch": "2.13.0", "onnxruntime": "1.32.0"}
            record = {"machine": machine, "taken": "2026-11-28T10:00:00+00:00", "timings": timings}
            (folder / LATENCY).write_text(json.dumps(record))
    return root


def verdicts(root: Path) -> Iterator[Verdict]:
    wanted = [claim for claim in load_claims(CLAIMS) if claim.id.startswith("mobile-latency")]
    return iter(judge(load_runs(root), wanted))


def test_the_papers_order_is_reproduced_and_its_reverse_contradicted(tmp_path: Path) -> None:
    found = {verdict.claim.id: verdict for verdict in verdicts(simulated(tmp_path / "a", PAPER))}
    assert [found[name].verdict for name in ORDER] == ["reproduced"] * 3, found
    assert found["mobile-latency-flops"].verdict == "reproduced"
    assert found["mobile-latency-norm"].effect is not None
    assert found["mobile-latency-norm"].effect.mean == pytest.approx(167 - 92, rel=0.02)
    on_a_cpu = dict(zip(PAPER, (66.0, 72.0, 67.0, 79.0), strict=True))
    found = {verdict.claim.id: verdict for verdict in verdicts(simulated(tmp_path / "b", on_a_cpu))}
    assert [found[name].verdict for name in ORDER] == ["reproduced", "contradicted", "reproduced"]
    assert found["mobile-latency-flops"].verdict == "contradicted"
    assert found["mobile-latency-flops"].score == "latency"


def test_runs_of_two_machines_are_not_compared(tmp_path: Path) -> None:
    root = simulated(tmp_path / "runs", PAPER)
    assert "1×128 tokens, 1 thread, fp32, a processor with 2 processors, PyTorch 2.13.0" in latency_note(
        load_runs(root)
    )
    table = costs(load_runs(root))
    assert table["latency, ms"].tolist() == pytest.approx(table["ONNX latency, ms"].tolist())
    one = next(file for file in root.glob(f"*/{LATENCY}") if "no_norm" in (file.parent / "config.yaml").read_text())
    one.write_text(one.read_text().replace("a processor", "another one"))
    runs = load_runs(root)
    assert "in different ways" in str(unfit(runs, "latency"))
    assert "on different machines, are not compared" in latency_note(runs)
    left = {verdict.claim.id: verdict for verdict in verdicts(root) if "in different ways" in verdict.reason}
    assert "mobile-latency-relu" in left or "mobile-latency-flops" in left
    assert {verdict.verdict for verdict in left.values()} == {"not tested"}
    for file in root.glob(f"*/{LATENCY}"):
        file.unlink()
    reasons = [verdict.reason for verdict in verdicts(root)]
    assert all("time the arms (python -m benchmarks.latency" in reason for reason in reasons)
    assert latency_note(load_runs(root)) == ""
    assert "latency, ms" not in costs(load_runs(root))


def test_a_report_shows_them_and_the_audit_derives_them_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = simulated(tmp_path / "runs", PAPER)
    (next(root.iterdir()) / LATENCY).write_text('{"timings": 3}')
    assert report.main([str(root), "--out", str(tmp_path / "report")]) == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert "| latency, ms |" in text
    assert "Latency: 1×128 tokens, 1 thread, fp32, a processor with 2 processors, PyTorch 2.13.0." in text
    assert "python -m benchmarks.latency." in (tmp_path / "report" / "index.html").read_text()
    (next(root.iterdir()) / LATENCY).unlink()
    assert report.main([str(root), "--out", str(tmp_path / "report")]) == 0
    capsys.readouterr()
    audit.main([str(tmp_path / "report"), str(root)])
    assert DISAGREES not in capsys.readouterr().out


def test_the_commands_of_the_page_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its own words; those without a limit of calls get one."""
    page = (ROOT / "docs" / "latency.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    python -m (benchmarks\.latency|analysis\.report) (.*)$", page, re.M)
    assert len(lines) == 3
    places = [tmp_path / name for name in ("one", "other")]
    short = ("budget.steps=2", "budget.warmup_steps=1")
    first, other = (run(tiny_config(place, *short, f"seed={n}")).path for n, place in enumerate(places))
    named = {"runs/NAME": str(first), "runs/OTHER": str(other)}
    quick = ["--forms", "eager", "--lengths", "8", "--calls", "1", "--warm-up", "1", "--threads", "1"]
    for name, rest in lines:
        words = [named.get(word, word) for word in rest.split()]
        if name == "benchmarks.latency":
            words += [*quick, "--no-memory"] if "--calls" not in words else []
            assert latency.main([*words, "--out", str(tmp_path / "latency.json")]) == 0
        else:
            assert report.main([str(first.parent), str(other.parent), "--out", str(tmp_path / "report")]) == 0
    assert "| latency, ms |" in (tmp_path / "report" / "report.md").read_text()
    capsys.readouterr()
