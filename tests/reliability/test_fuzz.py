"""Random bytes and structures into every reader: an error in words or a result, and nothing else."""

import dataclasses
import gzip
import io
import json
import lzma
import math
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from reporthelpers import cells, write_cell
from runhelpers import run, tiny_config, write_corpus
from safetensors.torch import save
from taskhelpers import sentiment, squad_content, write_race

from albert_ablate.config.parse import parse
from albert_ablate.config.schema import DataConfig, RunConfig
from albert_ablate.data.corpora import open_corpus
from albert_ablate.data.text import prepare_text, text_info
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.data.wordpiece import read_vocabulary
from albert_ablate.door.compose import compose
from albert_ablate.errors import CheckpointError, ConfigError, DataError
from albert_ablate.interop.weights import read_tensors
from albert_ablate.model.pretraining import build_model
from albert_ablate.record.folder import TOKENIZER
from albert_ablate.tasks.race import read_race
from albert_ablate.tasks.squad.data import misplaced, read_squad
from albert_ablate.tasks.tables import read_rows
from albert_ablate.tasks.texts.examples import read_glue, read_text
from albert_ablate.training.checkpoint import load_matching, load_weights
from analysis.compare import compare, compare_tasks
from analysis.judge.claims import load_claims
from analysis.read.runs import load_metrics, load_runs

FEW = settings(max_examples=40, deadline=None)
#: What a reader may say of a bad file.
WORDS = (DataError, CheckpointError, ConfigError)


def said(act: Callable[[], object]) -> str | None:
    """The words with which ``act`` is refused; None where it is not. Any other error comes out."""
    try:
        act()
    except WORDS as error:
        return str(error)
    return None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@st.composite
def spoiled(draw: st.DrawFn, valid: bytes) -> bytes:
    """Random bytes, or ``valid`` with a few bytes changed, a part missing, or a part of it twice."""
    kind = draw(st.sampled_from(("random", "changed", "cut", "without", "twice", "inserted")))
    if kind == "random":
        return draw(st.binary(max_size=300))
    first, second = sorted((draw(st.integers(0, len(valid))), draw(st.integers(0, len(valid)))))
    if kind == "cut":
        return valid[:first]
    if kind == "without":
        return valid[:first] + valid[second:]
    if kind == "twice":
        return valid[:second] + valid[first:]
    if kind == "inserted":
        return valid[:first] + draw(st.binary(max_size=20)) + valid[first:]
    found = bytearray(valid)
    for at in draw(st.lists(st.integers(0, len(valid) - 1), min_size=1, max_size=8)):
        found[at] = draw(st.integers(0, 255))
    return bytes(found)


# --- files ---------------------------------------------------------------------------------------


@cache
def settings_of(*words: str) -> RunConfig:
    return compose(words)


def corpus_reader(form: Literal["auto", "sentences", "prose"] = "auto") -> Callable[[Path], None]:
    def read(file: Path) -> None:
        data: DataConfig = dataclasses.replace(
            settings_of("data=text", "data.path=x").data, path=str(file), format=form
        )
        info = text_info(prepare_text(open_corpus(data), "en", 0.5, file.parent / "cache"))
        assert info["train"]["documents"] >= 1
        (cached,) = (file.parent / "cache" / "text").iterdir()
        for side in ("train", "valid"):
            assert "\0" not in (cached / f"{side}.txt").read_text(encoding="utf-8")

    return read


def glue(file: Path) -> None:
    found = read_glue(settings_of("task=sst2").tasks["sst2"], {"train": file, "dev": file})  # type: ignore[arg-type]
    assert all(example.first.strip() and example.target in (0, 1) for example in found.train)


def own_table(kind: str) -> Callable[[Path], None]:
    def read(file: Path) -> None:
        task = settings_of(f"task={kind}", f"tasks.{kind}.train_file=x").tasks[kind]
        found = read_text(task, {"train": file})  # type: ignore[arg-type]
        assert found.train
        assert all(isinstance(example.first, str) and example.first.strip() for example in found.train)

    return read


def squad(file: Path) -> None:
    found = read_squad(file, "2.0")
    misplaced(found)
    assert all(isinstance(text, str) and text.encode() is not None for text in found.paragraphs)
    assert all(question.start >= -1 for question in found.questions)


def race(file: Path) -> None:
    found = read_race(settings_of("task=race").tasks["race"], {"train/all": [file]}, "train")  # type: ignore[arg-type]
    assert all(len(q.options) == 4 and q.answer in range(4) for q in found)
    assert all(isinstance(text, str) for q in found for text in (q.article, q.question, *q.options))


def prose() -> bytes:
    return "\n\n\n".join(f"Text {n} here. Another\nsentence of {n}!\n\nMore é😀." for n in range(12)).encode()


def rows(key: str, value: Callable[[int], Any]) -> bytes:
    table = [{"text": f"Text {n} here. And more.", key: value(n)} for n in range(12)]
    return "".join(json.dumps(row) + "\n" for row in table).encode()


def parquet() -> bytes:
    out = io.BytesIO()
    pd.DataFrame({"text": [f"Text {n} here." for n in range(12)], "n": range(12)}).to_parquet(out)
    return out.getvalue()


def tsv() -> bytes:
    return "\n".join("\t".join(map(str, row)) for row in [["sentence", "label"], *sentiment(12, 0)]).encode()


def csv() -> bytes:
    return b'text,label\n"one, ""two""\nthree",a\nfour,b\n' * 1 + b"".join(
        b"x%d,a\ny%d,b\n" % (n, n) for n in range(30)
    )


def passages(folder: Path) -> bytes:
    write_race(folder)
    return "\n".join(path.read_text() for path in sorted((folder / "RACE/train/middle").glob("*.txt"))).encode()


CLAIM = yaml.safe_dump(
    [{"id": "a", "claim": "b", "arms": {"x": "table4.8", "y": {"share": "all", "embedding": "H/6"}},
      "effect": {"x": 1, "y": -1}, "scores": ["MLM"], "above": 0}]
).encode()  # fmt: skip
VOCABULARY = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b"]).encode()

#: Name of a file -> what a good one holds, and its reader.
READERS: dict[str, tuple[bytes, Callable[[Path], object]]] = {
    "prose.txt": (prose(), corpus_reader()),
    "sentences.txt": (prose(), corpus_reader("sentences")),
    "packed.txt.gz": (gzip.compress(prose()), corpus_reader("prose")),
    "packed.txt.xz": (lzma.compress(prose()), corpus_reader("prose")),
    "rows.jsonl": (rows("title", str), corpus_reader()),
    "rows.parquet": (parquet(), corpus_reader()),
    "squad.json": (json.dumps(squad_content(4, 0, impossible=True)).encode(), squad),
    "race.jsonl": (b"", race),  # filled in below
    "glue.tsv": (tsv(), glue),
    "table.tsv": (tsv(), lambda file: list(read_rows(file, ["a", "b"], []))),
    "own.csv": (csv(), own_table("text_classification")),
    "classes.jsonl": (rows("label", lambda n: "ab"[n % 2]), own_table("text_classification")),
    "numbers.jsonl": (rows("score", float), own_table("text_regression")),
    "claims.yaml": (CLAIM, load_claims),
    "vocab.txt": (VOCABULARY, read_vocabulary),
}


@pytest.mark.parametrize("name", READERS)
def test_a_file_of_any_bytes_is_read_or_refused_in_words(name: str, place: Path) -> None:
    folder = place / name
    folder.mkdir()
    valid, read = READERS[name]
    valid = valid or passages(folder)
    (folder / name).write_bytes(valid)
    read(folder / name)  # the good one is good

    @FEW
    @given(content=spoiled(valid))
    def check(content: bytes) -> None:
        (folder / name).write_bytes(content)
        for cached in (folder / "cache" / "text").glob("*"):
            for file in cached.iterdir():
                file.unlink()
            cached.rmdir()
        assert said(lambda: read(folder / name)) != ""

    check()


# --- structures ----------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=8)
    | st.sampled_from(["<b>", "\ud800", "\0", "1", "nan", "../..", 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@st.composite
def altered(draw: st.DrawFn, valid: Any) -> Any:
    """A copy of ``valid`` with another value at one place, or one missing."""
    found = json.loads(json.dumps(valid))
    node: Any = found
    while isinstance(node, dict | list) and len(node):
        key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        inner = node[key]
        if not isinstance(inner, dict | list) or not len(inner) or draw(st.integers(0, 3)) == 0:
            if draw(st.booleans()):
                node[key] = draw(JSON)
            else:
                del node[key]
            return found
        node = inner
    return draw(JSON)


RECORDS = ("status.json", "config.yaml", "manifest.json", "results.json", "similarity.json")


@pytest.mark.parametrize("name", RECORDS)
def test_any_record_of_a_run_makes_a_row(name: str, place: Path) -> None:
    folder = write_cell(place / f"{name}-runs", cells("table5")[0], 0, tasks=("sst2", "squad11"))
    write_cell(place / f"{name}-runs", cells("table5")[0], 1, tasks=("sst2", "squad11"))
    read, dump = (yaml.safe_load, yaml.safe_dump) if name.endswith("yaml") else (json.loads, json.dumps)
    valid = read((folder / name).read_text())
    assert load_runs(folder.parent)["note"].tolist() == ["", ""]

    @FEW
    @given(values=altered(valid))
    def check(values: Any) -> None:
        try:
            (folder / name).write_text(dump(values))
        except (UnicodeEncodeError, ValueError):
            return
        runs = load_runs(folder.parent)
        assert len(runs) == 2
        for column in ("mlm", "mlm_loss", "params_with_pooler", "seconds", "tokens_per_second"):
            assert all(value is None or math.isfinite(value) or math.isnan(value) for value in runs[column])
        compare(runs)
        compare_tasks(runs)
        runs.to_csv(io.StringIO())
        "".join(runs["note"]).encode()

    check()


@pytest.mark.parametrize("name", [*RECORDS, "metrics.jsonl"])
def test_any_bytes_in_a_run_folder_make_a_row(name: str, place: Path) -> None:
    folder = write_cell(place / f"{name}-bytes", cells("table5")[0], 0, tasks=("sst2",))
    valid = (folder / name).read_bytes()

    @FEW
    @given(content=spoiled(valid))
    def check(content: bytes) -> None:
        (folder / name).write_bytes(content)
        runs = load_runs(folder.parent)
        assert len(runs) == 1
        compare(runs)
        assert all(isinstance(step, int) for step in load_metrics(folder).get("step", pd.Series(dtype=int)).tolist())

    check()


def test_any_structure_of_settings_is_a_configuration_or_refused(place: Path) -> None:
    valid = compose(["data=wikitext", "task=[sst2,squad20,race,era]", "warm_start.layers=[1]"]).as_dict()

    @settings(max_examples=150, deadline=None)
    @given(values=altered(valid))
    def check(values: Any) -> None:
        try:
            config = parse(values)
        except ConfigError:
            return
        assert parse(config.as_dict()) == config

    check()


# --- models --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(place: Path) -> tuple[Any, Path]:
    write_corpus(place / "trained" / "corpus.txt")
    config = tiny_config(place / "trained")
    return config, run(config).path


def test_any_bytes_of_weights_are_loaded_or_refused_in_words(trained: tuple[Any, Path], place: Path) -> None:
    config, _ = trained
    model = build_model(config.architecture(), 0)
    valid = save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})
    (place / "weights").mkdir()
    file = place / "weights" / "model.safetensors"
    file.write_bytes(valid)
    load_weights(file.parent, model)
    header = 8 + int.from_bytes(valid[:8], "little")

    @FEW
    @given(content=spoiled(valid) | spoiled(valid[:header]).map(lambda head: head + valid[header:]))
    def check(content: bytes) -> None:
        file.write_bytes(content)
        for load in (load_weights, load_matching):
            assert str(file) in (said(partial(load, file.parent, model)) or str(file))
        assert str(file) in (said(lambda: read_tensors(file.parent)) or str(file))

    check()


def test_weights_of_another_kind_of_number_are_refused(trained: tuple[Any, Path], tmp_path: Path) -> None:
    model = build_model(trained[0].architecture(), 0)
    whole = {name: torch.zeros(tensor.shape, dtype=torch.int64) for name, tensor in model.state_dict().items()}
    (tmp_path / "model.safetensors").write_bytes(save(whole))
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_weights(tmp_path, model)


def test_any_bytes_of_a_tokenizer_are_opened_or_refused_in_words(trained: tuple[Any, Path], place: Path) -> None:
    config, folder = trained
    valid = (folder / TOKENIZER).read_bytes()
    file = place / "any.model"

    @FEW
    @given(content=st.binary(max_size=300) | st.integers(0, len(valid)).map(lambda n: valid[:n]))
    def check(content: bytes) -> None:
        file.write_bytes(content)
        message = said(lambda: Tokenizer(file, config.tokenizer).encode(["Any text."]))
        assert message is None or "tokenizer.model_path" in message

    check()
