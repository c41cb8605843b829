"""k-shot evaluation through its command: masked and causal runs, finished, cut and refused ones."""

import csv
import io
import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from runhelpers import ROOT, run, start
from taskhelpers import write_race, write_sst2, write_tsv

from albert_ablate.axes import MethodName
from albert_ablate.commands import kshot
from albert_ablate.config.schema import RunConfig
from albert_ablate.data.prepare import prepare
from albert_ablate.door.compose import compose_for_run
from albert_ablate.errors import ConfigError, PreemptedError
from albert_ablate.methods import METHODS
from albert_ablate.prompting import likelihood, scores
from albert_ablate.prompting.rules import RULES, OptionScores
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.results import Results
from analysis.judge import prompted
from analysis.read.runs import load_runs
from analysis.recount import prompted as recounted
from analysis.recount.checks import AGREES
from analysis.recount.runs import Run
from analysis.scores import table

DOC = ROOT / "docs" / "kshot.md"
TEMPLATE = """
prompt: "{first} na"
options: {"0": bo, "1": ta}
separator: ". "
neutral: "na"
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_race(write_sst2(tmp_path_factory.mktemp("data")))
    (folder / "mine.yaml").write_text(TEMPLATE)
    return folder


@pytest.fixture
def done(cell: Callable[..., RunConfig]) -> RunFolder:
    return run(cell())


def words(folder: RunFolder, data: Path, *more: str) -> list[str]:
    return [str(folder.path), "task=sst2", f"task.data_dir={data}", f"kshot.template={data / 'mine.yaml'}",
            "kshot.examples=20", "runtime.device=cpu", *more]  # fmt: skip


def entries(folder: RunFolder) -> list[Any]:
    return folder.load("results.json", Results).kshot


def lines(folder: RunFolder, unit: str) -> list[dict[str, Any]]:
    return scores.read_lines(folder.path / "kshot" / unit)


def test_a_masked_run_end_to_end(done: RunFolder, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = done.read("results.json")
    assert kshot.main(words(done, data, "kshot.k=0,1", "kshot.seeds=0,1,2")) == 0
    said = capsys.readouterr().out
    assert "pseudo-likelihood, word_l2r" in said
    zero, one = entries(done)
    assert (zero.k, zero.seeds, one.k, one.seeds, one.questions) == (0, [], 1, [0, 1, 2], 20)
    assert set(one.accuracy) == set(RULES)
    assert (zero.chance, len(one.units), zero.spread["sum"]) == (0.5, 3, None)
    assert one.accuracy["sum"] == pytest.approx(sum(one.accuracies["sum"]) / 3)
    assert {key: value for key, value in done.read("results.json").items() if key != "kshot"} == before
    for unit in (*zero.units, *one.units):
        found = lines(done, unit)
        assert [len(line["options"]) for line in found] == [2] * 20
        for line in found:
            assert len(line["shots"]) <= 1
            assert all(len(option["content_free"]) == 3 and "null" in option for option in line["options"])
    # The recorded accuracies follow from the file of options.
    for entry in (zero, one):
        for rule in entry.accuracy:
            each = []
            for unit in entry.units:
                hits = [
                    max(range(2), key=RULES[rule]([OptionScores(**option) for option in line["options"]]).__getitem__)
                    == line["answer"]
                    for line in lines(done, unit)
                ]
                each.append(sum(hits) / len(hits))
            assert each == pytest.approx(entry.accuracies[rule])


def test_finished_units_are_skipped_and_a_cut_one_continues(
    done: RunFolder, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scores, "_PART", 8)
    ask = words(done, data, "kshot.k=1", "kshot.seeds=0", "kshot.rules=[sum,null]")
    assert kshot.main(ask) == 0
    unit = entries(done)[0].units[0]
    whole = (done.path / "kshot" / unit / "options.jsonl").read_bytes()
    assert not (done.path / "kshot" / unit / "parts").exists()
    calls: list[int] = []
    real = likelihood.Likelihood.__call__

    def counted(self: Any, candidates: Any) -> Any:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(len(candidates))
        return real(self, candidates)

    with monkeypatch.context() as patched:
        patched.setattr(likelihood.Likelihood, "__call__", counted)
        assert kshot.main(ask) == 0
        assert calls == []  # finished
        assert "nothing to do" in capsys.readouterr().out
        assert kshot.main([*ask, "rerun=all"]) == PreemptedError.exit_code
    folder = RunFolder(done.path / "kshot", unit)
    assert (folder.state(), len(list((folder.path / "parts").iterdir()))) == ("preempted", 2)
    calls.clear()
    calls.append(0)
    with monkeypatch.context() as patched:
        patched.setattr(likelihood.Likelihood, "__call__", counted)
        assert kshot.main(ask) == 0
    assert len(calls) == 2  # one part of the three was left
    assert (folder.path / "options.jsonl").read_bytes() == whole


def test_choices_and_pairs_of_one_run(done: RunFolder, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = [str(done.path), "task=[race,minimal_pairs]", f"task.data_dir={data}", "kshot.examples=8", "kshot.k=[0]"]
    assert kshot.main([*ask, "kshot.minimal_pairs.pairs=3", "kshot.minimal_pairs.rules=[swap,replace]"]) == 0
    pairs, race = entries(done)
    assert (race.task, race.chance, pairs.task, pairs.chance, pairs.majority) == (
        "race",
        0.25,
        "minimal_pairs",
        0.5,
        None,
    )
    assert set(pairs.accuracy) == {"sum", "token", "byte"}
    assert {name: shares["sum"].n for name, shares in pairs.phenomena.items()} == {"swap": 3, "replace": 3}
    assert race.cut > 0  # of 30 tokens
    said = capsys.readouterr().out
    assert "questions did not fit and lost their beginning" in said
    for line in lines(done, pairs.units[0]):
        good, bad = (line["options"][place] for place in (line["answer"], 1 - line["answer"]))
        assert len(good["tokens"]) == len(bad["tokens"])
        if line["phenomenon"] == "swap":
            assert sorted(good["text"].split()) == sorted(bad["text"].split())


def test_pairs_from_a_file(done: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "blimp.jsonl"
    rows = [
        {"sentence_good": "ba de ko", "sentence_bad": "ko de ba", "UID": "order", "field": "syntax"},
        {"sentence_good": "ba de", "sentence_bad": "BA de", "UID": "case"},  # the same to the tokenizer
    ]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    ask = [str(done.path), "task=minimal_pairs", f"kshot.minimal_pairs.file={file}"]
    assert kshot.main(ask) == 0
    assert "1 pairs left out: equal tokens" in capsys.readouterr().out
    assert list(entries(done)[0].phenomena) == ["order"]
    file.write_text(json.dumps({"sentence_good": "ba"}) + "\n")
    assert kshot.main(ask) == 2
    assert f"{file}, line 1: there is no key 'sentence_bad'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["task=none"], "Which task?"),
        (["task=mnli,race"], "a template fits one task"),
        (["kshot.k=two"], "kshot.k.0='two'"),
        (["embed=e64"], "the run is trained already"),
        (["kshot.template=nowhere.yaml"], "no such file"),
        (["task=squad11", "kshot.template=null"], "no template is shipped for task=squad11"),
    ],
)
def test_wrong_settings_are_refused_before_the_work(
    more: list[str], said: str, finished: RunFolder, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kshot.main(words(finished, data, *more)) > 0
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (finished.path / "kshot").exists()


def test_minimal_pairs_are_asked_of_finished_runs_only(
    cell: Callable[..., RunConfig], done: RunFolder, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="nothing is fine-tuned on it"):
        start(cell("task=minimal_pairs"))
    assert kshot.main([str(done.path), "task=minimal_pairs", "kshot.k=4"]) > 0
    assert "task=minimal_pairs has no demonstrations. Use kshot.k=[0]." in " ".join(capsys.readouterr().err.split())
    assert kshot.main([str(done.path), "task=minimal_pairs", "kshot.rules=[null]"]) > 0
    assert "has a template without a neutral prompt" in " ".join(capsys.readouterr().err.split())


def test_a_run_without_predictions_is_refused(
    cell: Callable[..., RunConfig], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(cell("method=electra", "budget.steps=2", "budget.warmup_steps=1"))
    assert kshot.main(words(folder, data)) > 0
    assert "this run predicts no tokens (method=electra)" in " ".join(capsys.readouterr().err.split())


@pytest.mark.skipif(MethodName.CAUSAL not in METHODS, reason="there is no causal LM")
def test_a_causal_run_end_to_end(
    cell: Callable[..., RunConfig], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(cell("method=causal", "objective=none"))
    assert kshot.main(words(folder, data, "kshot.k=0,1", "kshot.seeds=0,1", "kshot.examples=8")) == 0
    assert "(likelihood)" in capsys.readouterr().out
    zero, one = entries(folder)
    assert (zero.scoring, set(one.accuracy)) == ("likelihood", set(RULES))
    assert kshot.main([str(folder.path), "task=minimal_pairs", "kshot.minimal_pairs.pairs=3"]) == 0


def test_the_report_shows_the_scores_and_the_audit_counts_again(done: RunFolder, data: Path) -> None:
    assert kshot.main(words(done, data, "kshot.k=0,1", "kshot.seeds=0,1", "kshot.examples=8")) == 0
    pairs = ["task=minimal_pairs", "kshot.minimal_pairs.pairs=3", "kshot.minimal_pairs.rules=[swap,replace]"]
    assert kshot.main([str(done.path), *pairs]) == 0
    runs = load_runs(done.path)
    table = prompted.frame(runs)
    assert list(table["task"].value_counts()) == [10, 3]
    entry = next(entry for entry in entries(done) if entry.task == "minimal_pairs")
    assert runs["minimal_pairs"].tolist() == [entry.accuracy["sum"]]
    lines = prompted.rows(runs)
    assert [line[1:3] for line in lines[:3]] == [["minimal_pairs", "0"], ["minimal_pairs: swap", "0"],
                                                 ["minimal_pairs: replace", "0"]]  # fmt: skip
    cells = list(csv.DictReader(io.StringIO(table.to_csv(index=False))))
    checks = recounted.check(cells, [Run(done.path)])
    assert len(checks) == 2 * 13 + 2 * 3 + 3 + 3 * 13
    assert {check.state for check in checks} == {AGREES}
    file = done.path / "kshot" / entry.units[0] / "options.jsonl"
    found = [json.loads(line) for line in file.read_text().splitlines()]
    found[0]["answer"] = 1 - found[0]["answer"]
    file.write_text("".join(json.dumps(line) + "\n" for line in found))
    wrong = [check for check in recounted.check(cells, [Run(done.path)]) if check.state != AGREES]
    assert wrong
    assert all("minimal_pairs" in check.where for check in wrong)


def test_a_bigram_model_stands_beside_minimal_pairs(
    done: RunFolder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pairs = ["task=minimal_pairs", "kshot.minimal_pairs.pairs=20", "kshot.minimal_pairs.rules=[swap,replace]"]
    assert kshot.main([str(done.path), *pairs, "runtime.device=cpu"]) == 0
    assert re.search(r"50\.0 chance · \d+\.\d bigram", capsys.readouterr().out)
    (entry,) = entries(done)
    assert entry.bigram is not None
    config = compose_for_run(done.path / "config.yaml", [])
    prepared = prepare(config)
    tokens = prepared.train.tokens.astype(int).tolist()
    size = prepared.tokenizer.vocab_size
    counts = [tokens.count(piece) + 1 for piece in range(size)]
    frequency = [count / sum(counts) for count in counts]
    neighbours = Counter(pairwise(tokens))
    followed = Counter(tokens[:-1])

    def nats(text: str) -> float:
        ids = prepared.tokenizer.encode([text])[0]
        first = -math.log(frequency[ids[0]])
        return first - sum(
            math.log((neighbours[pair] + 50 * frequency[pair[1]]) / (followed[pair[0]] + 50)) for pair in pairwise(ids)
        )

    right: dict[str, list[float]] = {}
    for line in lines(done, entry.units[0]):
        computed = [-nats(option["text"]) for option in line["options"]]
        assert [option["bigram"] for option in line["options"]] == pytest.approx(computed, abs=1e-5)
        lead = round(computed[line["answer"]], 6) - round(computed[1 - line["answer"]], 6)
        right.setdefault(line["phenomenon"], []).append((1 + (lead > 1e-9) - (lead < -1e-9)) / 2)  # a tie is a half
    means = {name: sum(found) / len(found) for name, found in right.items()}
    assert {name: share.value for name, share in entry.bigram_phenomena.items()} == pytest.approx(means)
    assert entry.bigram.value == pytest.approx(sum(map(sum, right.values())) / entry.questions)
    shown, _ = table(load_runs(done.path))
    assert "minimal pairs" in shown.head
    assert prompted.rows(load_runs(done.path))[0][-2].count("·") == 2


def test_another_training_text_gives_no_bigram_model(done: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = done.read("manifest.json")
    manifest["data"]["tokens"]["fingerprint"] = "0" * 12
    (done.path / "manifest.json").write_text(json.dumps(manifest))
    pairs = ["task=minimal_pairs", "kshot.minimal_pairs.pairs=3", "kshot.minimal_pairs.rules=[swap]"]
    assert kshot.main([str(done.path), *pairs, "runtime.device=cpu"]) == 0
    assert "no bigram model beside the minimal pairs" in capsys.readouterr().out
    assert entries(done)[0].bigram is None
    assert [line[-2] for line in prompted.rows(load_runs(done.path))] == ["50.0 · — · —"] * 2


def test_every_command_of_the_page_runs(done: RunFolder, data: Path, tmp_path: Path) -> None:
    write_tsv(data / "mine.tsv", ["text", "label"], [[f"ba de ko {n}", ("yes", "no")[n % 2]] for n in range(20)])
    mine = tmp_path / "mine.yaml"
    mine.write_text("prompt: '{text} ba'\n")
    (data / "pairs.jsonl").write_text(json.dumps({"sentence_good": "ba de ko", "sentence_bad": "ko ba de"}) + "\n")
    block = re.search(r"^```bash\n(.*?)^```", DOC.read_text(), re.M | re.S)
    assert block is not None
    commands = [shlex.split(line) for line in block[1].splitlines()]
    assert len(commands) == 5
    for program, flag, module, *given in commands:
        assert (program, flag, module) == ("python", "-m", "albert_ablate.kshot")
        given = [word.replace("DATA/mine.yaml", str(mine)).replace("DATA", str(data)) for word in given]
        given = [str(done.path) if word == "RUN" else word for word in given]
        short = ["kshot.examples=8"] + ([] if any("kshot.k=" in word for word in given) else ["kshot.k=0"])
        short += ["tasks.word_order.train_examples=100"] if "task=word_order" in given else []
        assert kshot.main([*given, *short, "runtime.device=cpu"]) == 0, given
    shown = re.findall(r"^    (prompt|options|separator|neutral): ", DOC.read_text(), re.M)
    assert shown == ["prompt", "options", "separator", "neutral"]
