"""Causal LM: what a position sees, the loss, bits per byte, probes, pooling, stops and refusals."""

import io
import json
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console, Group
from runhelpers import make_batches, run, start, stopped_in, timeless, tiny_config, weights_of
from torch.nn import functional as F

import albert_ablate as aa
from albert_ablate.commands import evaluate, generate
from albert_ablate.config.schema import RunConfig
from albert_ablate.data.batches import NO_TARGET
from albert_ablate.data.prepare import Prepared, prepare
from albert_ablate.data.tokenizer import SEP
from albert_ablate.data.written import document_bytes
from albert_ablate.errors import ConfigError, DataError
from albert_ablate.evaluation.baselines import NgramBaselines
from albert_ablate.evaluation.causal import HeldOutStream, context_windows
from albert_ablate.evaluation.continuation import Sampler, Writer
from albert_ablate.methods import Measure, method_of
from albert_ablate.model.rows import last_rows
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.summary import held_out
from albert_ablate.training.machine import Machine
from analysis import audit, report
from analysis.judge.metrics import BITS_PER_BYTE, CONTEXT_GAIN, summarised, unfit
from analysis.read.runs import load_runs

CAUSAL = ("method=causal", "objective=none")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("causal")


@pytest.fixture(scope="module")
def trained(shared: Path) -> RunFolder:
    return run(tiny_config(shared, *CAUSAL, "budget.steps=60", "evaluation.max_pairs=64", runs="trained"))


@pytest.fixture(scope="module")
def config(shared: Path) -> RunConfig:
    return tiny_config(shared, *CAUSAL)


@pytest.fixture(scope="module")
def prepared(config: RunConfig) -> Prepared:
    return prepare(config)


def scorer(model: Any, config: RunConfig, prepared: Prepared) -> HeldOutStream:
    baselines = NgramBaselines(prepared.train, prepared.tokenizer.vocab_size)
    return HeldOutStream(model, config, prepared, baselines, Machine.of(config.runtime))


@pytest.mark.parametrize("blocks", ["packed", "pairs"])
def test_the_loss_is_that_of_the_next_piece(shared: Path, blocks: str) -> None:
    config = tiny_config(shared, *CAUSAL, f"method.blocks={blocks}", "share=none")
    method, batch = method_of(config), make_batches(config)[3]
    model = method.build({})
    (term,) = method.terms(model, batch)
    states = model.encoder(batch.input_ids, batch.type_ids, batch.mask)
    logits = model.token_logits(states.flatten(0, 1))  # type: ignore[operator]
    assert (term.name, term.per, term.weight) == ("causal", "targets", 1.0)
    wanted = F.cross_entropy(logits, batch.targets.flatten(), ignore_index=NO_TARGET, reduction="sum")
    torch.testing.assert_close(term.loss_sum, wanted)
    assert term.hits == (logits.argmax(-1) == batch.targets.flatten()).sum()
    term.loss_sum.backward()
    mine = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    wanted.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(mine[name], parameter.grad, msg=name, rtol=1e-3, atol=1e-4)


def test_a_position_sees_no_later_one_and_the_documents_before_its_own(config: RunConfig) -> None:
    model = method_of(config).build({}).eval()
    batch = make_batches(config)[0]
    ids = batch.input_ids
    at = 20
    changed = ids.clone()
    changed[:, at:] = (changed[:, at:] + 17) % 150 + 5
    with torch.no_grad():
        before, after = (model.encoder(rows, batch.type_ids) for rows in (ids, changed))
        assert torch.equal(before[:, :at], after[:, :at])
        assert not torch.equal(before[:, at:], after[:, at:])
        row = int((ids[:, 5:] == SEP).any(1).nonzero()[0])
        begin = 5 + int((ids[row, 5:] == SEP).nonzero()[0])  # another document begins here
        changed = ids.clone()
        changed[row, 2] = (changed[row, 2] + 17) % 150 + 5
        after = model.encoder(changed, batch.type_ids)
    assert not torch.equal(before[row, begin + 1], after[row, begin + 1])


def test_flops_count_the_head_at_every_target(shared: Path) -> None:
    flops = {}
    for blocks in ("packed", "pairs"):
        config = tiny_config(shared, *CAUSAL, f"method.blocks={blocks}")
        shape = config.architecture()
        flops[blocks] = method_of(config).flops() / 3 - shape.encoder_flops(32)
    per_target = 2 * (32 * 16 + 16 * 200)
    assert flops == pytest.approx({"packed": 32 * per_target, "pairs": 31 * per_target})


def test_parameters_are_those_of_the_model(config: RunConfig) -> None:
    model = method_of(config).build({})
    assert method_of(config).parameters().with_heads == sum(p.numel() for p in model.parameters())
    assert method_of(config).measures == {Measure.CAUSAL_LM}


def test_uniform_logits_give_the_bits_of_the_vocabulary(config: RunConfig, prepared: Prepared) -> None:
    model: Any = method_of(config).build({})
    with torch.no_grad():
        model.mlm_head.bias.zero_()
        model.encoder.embedding.word.weight.zero_()
    record = scorer(model, config, prepared).results()["causal_lm"]
    bits = record["examples"] * np.log2(200) / record["bytes"]
    assert record["bits_per_byte"] == pytest.approx(bits, rel=1e-6)
    assert record["loss"] == pytest.approx(log(200), rel=1e-6)
    assert record["context"]["gain"] == pytest.approx(0, abs=1e-6)
    assert record["loss_interval"] == pytest.approx([log(200)] * 2, rel=1e-6)


def test_every_piece_of_the_scored_documents_counts_once(config: RunConfig, prepared: Prepared) -> None:
    """Recomputed one document after another, with a plain loop."""
    model: Any = method_of(config).build({}).eval()
    record = scorer(model, config, prepared).results()["causal_lm"]
    store, ids, owners = prepared.valid, [], []
    for document in range(record["documents"]):
        first, last = store.sentences[store.documents[document : document + 2]]
        ids += [SEP, *store.tokens[first:last].tolist()]
        owners += [document] * (last - first + 1)
    losses, hits = [], 0
    for begin in range(0, len(ids) - 1, 32):
        row = torch.tensor([ids[begin : begin + 32]])
        wanted = torch.tensor(ids[begin + 1 : begin + 33])
        with torch.no_grad():
            logits = model.token_logits(model.encoder(row, torch.zeros_like(row))[0])[: len(wanted)]
        losses += F.cross_entropy(logits, wanted, reduction="none").tolist()
        hits += int((logits.argmax(-1) == wanted).sum())
    assert record["examples"] == len(losses) == len(ids) - 1
    assert record["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert record["accuracy"] == pytest.approx(hits / len(losses))
    assert prepared.text is not None
    lines = (prepared.text / "valid.txt").read_text(encoding="utf-8").split("\n\n")
    size = sum(len(line.encode()) + 1 for text in lines[: record["documents"]] for line in text.split("\n") if line)
    assert (record["bytes"], record["bytes_of"]) == (size, "text")
    assert record["bits_per_byte"] == pytest.approx(sum(losses) / log(2) / size, rel=1e-5)
    counts = np.bincount(prepared.train.tokens, minlength=200) + 1
    share = prepared.train.document_count / (prepared.train.document_count + len(prepared.train.tokens))
    bar = [-log(share if t == SEP else (1 - share) * counts[t] / counts.sum()) for t in ids[1:]]
    assert record["unigram_loss"] == pytest.approx(np.mean(bar))


def test_the_gain_of_context_is_that_of_a_plain_loop(shared: Path) -> None:
    """Windows of 16 tokens of the text of a document, the first of each left out."""
    config = tiny_config(shared, *CAUSAL, "pairs.max_length=16", "evaluation.max_pairs=1000")
    prepared = prepare(config)
    model: Any = method_of(config).build({}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # so that context matters
    context = scorer(model, config, prepared).results()["causal_lm"]["context"]
    store, found, documents = prepared.valid, [], set()
    for document in range(store.document_count):
        first, last = store.sentences[store.documents[document : document + 2]]
        ids = [SEP, *store.tokens[first:last].tolist()]
        for begin in range(16, len(ids) - 16, 16):
            row = torch.tensor([ids[begin : begin + 16]])
            with torch.no_grad():
                logits = model.token_logits(model.encoder(row, torch.zeros_like(row))[0])
            losses = F.cross_entropy(logits, torch.tensor(ids[begin + 1 : begin + 17]), reduction="none")
            found.append(float(losses[14:].mean() - losses[1:2].mean()))
            documents.add(document)
    assert (context["windows"], context["documents"]) == (len(found), len(documents))
    assert len(documents) > 2
    assert context["gain"] == pytest.approx(np.mean(found), abs=1e-5)
    assert abs(context["gain"]) > 1e-3


def test_bytes_of_decoded_tokens_are_those_of_the_text_where_no_character_is_lost(prepared: Prepared) -> None:
    assert prepared.text is not None
    text, how = document_bytes(prepared.text / "valid.txt", prepared.valid, prepared.tokenizer)
    decoded, other = document_bytes(None, prepared.valid, prepared.tokenizer)
    assert (how, other) == ("text", "decoded tokens")
    assert text.tolist() == decoded.tolist()


def test_context_windows_follow_the_length() -> None:
    assert context_windows(512) == (slice(32, 64), slice(448, 512))
    assert context_windows(16) == (slice(1, 2), slice(14, 16))


def test_the_last_token_stands_for_a_text_and_padding_changes_nothing(config: RunConfig) -> None:
    model = method_of(config).build({}).eval()
    ids = torch.tensor([[2, 31, 54, 77, 3], [2, 9, 3, 0, 0]])
    mask = ids != 0
    longer, longer_mask = F.pad(ids, [0, 6]), F.pad(mask, [0, 6])
    with torch.no_grad():
        short = model.encoder(ids, torch.zeros_like(ids), mask, rows=last_rows(mask))
        long = model.encoder(longer, torch.zeros_like(longer), longer_mask, rows=last_rows(longer_mask))
        first = model.encoder(ids, torch.zeros_like(ids), mask)[:, 0]
    torch.testing.assert_close(short, long)
    assert torch.equal(first[0], first[1]), "[CLS] sees only itself"
    assert not torch.allclose(short[0], short[1])


def test_a_stopped_run_ends_as_one_that_was_not(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dropout = ("model.hidden_dropout=0.1", "model.attention_dropout=0.1")
    whole = run(tiny_config(shared, *CAUSAL, *dropout, runs="whole"))
    config = tiny_config(shared, *CAUSAL, *dropout, runs="parts")
    stopped_in(7, config, monkeypatch)
    parts = run(config)
    assert timeless(whole.metrics()) == timeless(parts.metrics())
    assert weights_of(whole) == weights_of(parts)


def test_the_record_of_a_run(trained: RunFolder) -> None:
    results, data = trained.read("results.json"), trained.read("manifest.json")["data"]
    assert results["masked_lm"] is None
    assert results["left_out"]["masked_lm"] == "not trained by this method"
    assert results["nsp"]["head"] == results["sop"]["head"] == "fitted on the frozen encoder, last token"
    assert results["replaced_tokens"]["auc"] > 0
    assert data["blocks_per_epoch"] > 0
    assert data["tokens_dropped_per_epoch"] < 32
    assert "pairs_per_epoch" not in data
    line = trained.metrics()[-1]
    assert {"causal_loss", "causal_accuracy", "held_out_causal_loss", "held_out_causal_accuracy"} <= line.keys()
    assert not any("mlm" in name for name in line)
    out = io.StringIO()
    Console(file=out, width=80).print(Group(*held_out(results)))
    for words in ("next-piece loss, nats", "bits per byte", "late less early, nats", "Still on its plateau"):
        assert words in out.getvalue()
    assert "masked" not in out.getvalue()


def test_its_numbers_are_columns_and_a_plateau_is_not_compared(trained: RunFolder) -> None:
    runs = load_runs(trained.path)
    record = trained.read("results.json")["causal_lm"]
    found, gain = summarised(runs, BITS_PER_BYTE), summarised(runs, CONTEXT_GAIN)
    assert found is not None
    assert gain is not None
    assert (found.mean, gain.mean) == (record["bits_per_byte"], record["context"]["gain"])
    assert not record["left_baseline"]
    assert "unigram baseline of causal LM in 1 of 1" in str(unfit(runs, BITS_PER_BYTE))


def test_a_report_of_causal_runs_agrees_with_their_files(trained: RunFolder, tmp_path: Path) -> None:
    runs, out = trained.path.parent, tmp_path / "report"
    assert report.main([str(runs), "--out", str(out)]) == 0
    assert audit.main([str(runs), "--report", str(out)]) == 0
    table = (out / "report.md").read_text(encoding="utf-8")
    assert "causal LM" in table
    claims = (out / "scorecard.csv").read_text(encoding="utf-8")
    assert "causal-scale" in claims
    assert "electra-beats-mlm" not in claims


def test_another_text_has_its_own_bars(trained: RunFolder, shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = shared / "other.txt"
    file.write_text((shared / "corpus.txt").read_text(encoding="utf-8").replace("a", "e"), encoding="utf-8")
    out = shared / "other.json"
    words = ["data=text", f"data.path={file}", f"paths.cache={shared / 'cache'}", "runtime.device=cpu"]
    assert evaluate.main([str(trained.path), *words, "--out", str(out)]) == 0
    record = json.loads(out.read_text())["results"]["causal_lm"]
    assert record["bars"]["of"] == "this text"
    assert record["bars"]["run_unigram_loss"] > 0
    assert "left_baseline" not in record
    assert "piece frequencies of this text" in capsys.readouterr().out


def test_a_head_that_would_read_only_cls_is_refused(shared: Path, trained: RunFolder) -> None:
    with pytest.raises(ConfigError, match=r"task\.pool=last or task\.pool=mean"):
        tiny_config(shared, *CAUSAL, "task=word_order")
    assert tiny_config(shared, *CAUSAL, "task=word_order", "task.pool=last").task.pool == "last"
    loaded = aa.load(trained.path)
    with pytest.raises(ConfigError, match=r"\[CLS\] sees only itself"):
        loaded.embed(["It is."])
    assert loaded.embed(["It is."], pool="mean").shape == (1, 32)
    with pytest.raises(DataError, match="no trained masked-LM head"):
        loaded.fill_mask("It is a [MASK].")


def test_less_text_than_a_block_is_refused_before_the_first_batch(shared: Path) -> None:
    config = tiny_config(shared, *CAUSAL, "pairs.max_length=16384", "model.max_positions=16384", runs="short")
    with pytest.raises(DataError, match="a block needs 16,385"):
        start(config)


def test_a_text_is_continued_by_seed_and_token(trained: RunFolder) -> None:
    loaded = aa.load(trained.path)
    text = loaded.generate("Bafo dale", tokens=12, seed=3)
    assert text == loaded.generate("Bafo dale", tokens=12, seed=3)
    assert text != loaded.generate("Bafo dale", tokens=12, seed=4)
    assert text.startswith(loaded.generate("Bafo dale", tokens=5, seed=3))
    writer = Writer(loaded.model, loaded.config, loaded.tokenizer, torch.device("cpu"))
    (ids,) = loaded.tokenizer.encode(["Bafo dale"])
    greedy = writer.continued("Bafo dale", Sampler(temperature=0), 4)
    row = [SEP, *ids]
    for piece in greedy.pieces:
        with torch.no_grad():
            states = loaded.model.encoder(torch.tensor([row]), torch.zeros(1, len(row), dtype=torch.int64))
            logits = loaded.model.token_logits(states[0, -1:])[0]  # type: ignore[operator]
        logits[[0, 1, 2, 4]] = -torch.inf
        assert piece == int(logits.argmax())
        row.append(piece)
    long = writer.continued("bafo " * 40, Sampler(), 2)
    assert long.left_out == 1 + len(loaded.tokenizer.encode(["bafo " * 40])[0]) - 32


def test_sampling_follows_the_distribution() -> None:
    logits = np.log(np.array([0.5, 0.2, 0.2, 0.1]))
    drawn = np.bincount([Sampler(seed).choose(logits, 7) for seed in range(4000)], minlength=4) / 4000
    assert drawn == pytest.approx([0.5, 0.2, 0.2, 0.1], abs=0.03)
    assert {Sampler(seed, top_p=0.6).choose(logits, 0) for seed in range(200)} == {0, 1}
    assert {Sampler(seed, top_p=1e-9).choose(logits, 0) for seed in range(50)} == {0}
    sharp = [Sampler(seed, temperature=0.25).choose(logits, 0) for seed in range(2000)]
    assert np.mean(np.array(sharp) == 0) == pytest.approx(0.5**4 / (0.5**4 + 2 * 0.2**4 + 0.1**4), abs=0.03)


def test_the_command_writes_a_text_and_refuses_masked_runs(
    trained: RunFolder, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate.main([str(trained.path), "--prompt", "Bafo dale", "--tokens", "8", "--seed", "1"]) == 0
    assert capsys.readouterr().out.startswith("Bafo dale")
    assert generate.main([str(trained.path), "--prompt", "bafo " * 40, "--tokens", "2"]) == 0
    assert "reads it without its first" in capsys.readouterr().out
    for words, told in ((["--top-p", "0"], "top_p=0"), (["--tokens", "0"], "tokens=0"), (["--seed", "-1"], "seed=-1")):
        assert generate.main([str(trained.path), *words]) == 2
        assert told in capsys.readouterr().err
    masked = run(tiny_config(shared, runs="masked"))
    assert generate.main([str(masked.path), "--prompt", "Bafo"]) == 2
    assert "method=mlm: this run does not predict the next piece" in capsys.readouterr().err
