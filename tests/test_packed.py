"""A packed corpus is the text's own tokens: equal identities, batches and records; anything else is refused."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from runhelpers import batch_arrays, make_batches, read_json, run, start, tiny_config, tiny_overrides

from albert_ablate.commands.evaluate import main as evaluate
from albert_ablate.commands.pack import main, pack
from albert_ablate.data.prepare import Prepared, prepare
from albert_ablate.data.store import find_training
from albert_ablate.door.compose import compose
from albert_ablate.errors import ConfigError, DataError
from albert_ablate.experiment import run_folder
from albert_ablate.sweeping.real_tokens import RealTokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the corpus of the tiny runs, and ``corpus.pack``."""
    place = tmp_path_factory.mktemp("packed")
    pack(place / "corpus.pack", tiny_config(place))
    return place


def packed(folder: Path, cache: Path, *more: str) -> list[str]:
    """Settings of a tiny run on the packed corpus of ``folder``, with an empty cache."""
    words = [w for w in tiny_overrides(folder) if not w.startswith(("data", "paths"))]
    places = [f"data.path={folder / 'corpus.pack'}", f"paths.cache={cache}", f"paths.runs={cache.parent / 'runs'}"]
    return [*words, "data=packed", *places, *more]


def both(folder: Path, cache: Path, *more: str) -> tuple[Prepared, Prepared]:
    return prepare(tiny_config(folder, *more)), prepare(compose(packed(folder, cache, *more)))


def test_identity_tokens_and_batches_are_those_of_the_text(folder: Path, tmp_path: Path) -> None:
    for more in ((), ("data.fraction=0.5", "objective=nsp", "seed=3")):
        plain, unpacked = both(folder, tmp_path / "cache", *more)
        for side in ("train", "valid"):
            one, other = getattr(plain, side), getattr(unpacked, side)
            assert one.fingerprint == other.fingerprint
            assert one.tokens.dtype == other.tokens.dtype
            for name in ("tokens", "sentences", "documents"):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        config, here = tiny_config(folder, *more), compose(packed(folder, tmp_path / "cache", *more))
        names = [run_folder(c, p, "fp32").name for c, p in ((config, plain), (here, unpacked))]
        assert names[0] == names[1]
        for step in (0, 7):
            expected = batch_arrays(make_batches(config, plain)[step])
            assert batch_arrays(make_batches(here, unpacked)[step]) == expected


def test_the_record_is_that_of_the_text(folder: Path, tmp_path: Path) -> None:
    plain, unpacked = both(folder, tmp_path / "cache")
    assert unpacked.record == plain.record
    assert unpacked.record["source"]["files"] == ["corpus.txt"]
    assert "marks_dropped" in unpacked.record


def test_no_text_travels_and_the_cache_holds_none(folder: Path, tmp_path: Path) -> None:
    prepare(compose(packed(folder, tmp_path / "cache")))
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == ["masking", "tokens"]
    with zipfile.ZipFile(folder / "corpus.pack") as archive:
        assert not any(name.endswith(".txt") for name in archive.namelist())


def test_a_run_on_it_trains_to_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    ours = run(compose(packed(folder, tmp_path / "cache")))
    plain = run(tiny_config(folder, f"paths.runs={tmp_path / 'plain'}"))
    assert ours.name == plain.name
    numbers = [folder.read("results.json") for folder in (ours, plain)]
    assert numbers[0]["masked_lm"] == numbers[1]["masked_lm"]
    assert ours.read("manifest.json")["data"]["corpus"] == "text"


def test_a_run_of_the_text_is_scored_on_the_packed_corpus(folder: Path, tmp_path: Path) -> None:
    trained = run(tiny_config(folder, f"paths.runs={tmp_path / 'plain'}"))
    words = ["data=packed", f"data.path={folder / 'corpus.pack'}", f"paths.cache={tmp_path / 'cache'}"]
    words += ["runtime.precision=fp32", "runtime.device=cpu"]
    assert evaluate([str(trained.path), *words, "--out", str(tmp_path / "record.json")]) == 0
    record = read_json(tmp_path / "record.json")
    assert record["results"]["masked_lm"]["loss"] == trained.read("results.json")["masked_lm"]["loss"]
    assert "bars" not in record["results"]["masked_lm"], "it is the run's own text"
    assert record["results"]["scored"]["held_out_by"] == 0.2


def test_equal_corpora_give_equal_files(folder: Path, tmp_path: Path) -> None:
    pack(tmp_path / "again.pack", tiny_config(folder))
    assert (tmp_path / "again.pack").read_bytes() == (folder / "corpus.pack").read_bytes()
    pack(tmp_path / "repacked.pack", compose(packed(folder, tmp_path / "cache")))
    assert (tmp_path / "repacked.pack").read_bytes() == (folder / "corpus.pack").read_bytes()


def test_unpacked_tokens_are_found_by_their_fingerprint_and_counted_in_plans(folder: Path, tmp_path: Path) -> None:
    config = compose(packed(folder, tmp_path / "cache"))
    assert RealTokens().of(config)[1] is False, "nothing is unpacked for an estimate"
    unpacked = prepare(config)
    found = find_training(tmp_path / "cache", unpacked.train.fingerprint, 1.0)
    assert found is not None
    assert len(found.tokens) == len(unpacked.train.tokens)
    assert RealTokens().of(config) == RealTokens().of(tiny_config(folder))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["tokenizer.lowercase=false"], ["lowercase: True, not False", "Set those of the file"]),
        (["tokenizer.vocab_size=300"], ["Set tokenizer.vocab_size=200"]),
        (["tokenizer=bpe"], ["a unigram model"]),
    ],
)
def test_other_tokens_than_the_packed_ones_are_refused(
    settings: list[str], words: list[str], folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as error:
        prepare(compose(packed(folder, tmp_path / "cache", *settings)))
    assert all(word in str(error.value) for word in words), error.value


def altered(source: Path, target: Path, **members: bytes | None) -> Path:
    """A copy of a packed corpus with other members; None leaves one out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = members.get(name.split(".")[0].replace("/", "_"), old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def other_about(source: Path, **fields: object) -> bytes:
    with zipfile.ZipFile(source) as archive:
        return json.dumps(json.loads(archive.read("about.json")) | fields).encode()


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "cut", "bit", "member", "lengths", "format", "tokens"])
def test_damaged_and_foreign_files_are_refused_in_words(kind: str, folder: Path, tmp_path: Path) -> None:
    good, bad = folder / "corpus.pack", tmp_path / "bad.pack"
    content = good.read_bytes()
    with zipfile.ZipFile(good) as archive:
        valid = archive.read("valid/sentences.npy.xz")
        middle = archive.getinfo("train/tokens.npy.xz").header_offset + 200
    if kind == "folder":
        bad.mkdir()
    elif kind == "text":
        bad.write_text("A plain text.\n")
    elif kind == "cut":
        bad.write_bytes(content[: len(content) // 2])
    elif kind == "bit":
        bad.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif kind == "member":
        altered(good, bad, train_documents=None)
    elif kind == "lengths":
        altered(good, bad, train_sentences=valid)
    elif kind == "format":
        altered(good, bad, about=other_about(good, format=99))
    elif kind == "tokens":
        altered(good, bad, about=other_about(good, fingerprint="of other tokens"))
    with pytest.raises(DataError) as error:
        prepare(compose(packed(folder, tmp_path / "cache", f"data.path={bad}")))
    expected = {"missing": "no such file", "folder": "a folder", "format": "this version reads 1"}
    assert f"data.path={bad}: {'' if kind in ('missing', 'folder') else 'damaged, or not a packed corpus'}" in str(
        error.value
    )
    assert expected.get(kind, "albert_ablate.pack") in str(error.value)
    tokens = tmp_path / "cache" / "tokens"
    assert not tokens.exists() or not list(tokens.iterdir()), "nothing half unpacked stays"


def test_settings_that_have_no_effect_are_refused(folder: Path, tmp_path: Path) -> None:
    for words, said in (
        (["data.path=null"], "albert_ablate.pack"),
        (["data.validation_path=x.txt"], "no effect with data=packed"),
        (["data.validation_fraction=1"], "divided already"),
    ):
        with pytest.raises(ConfigError, match=said):
            compose(packed(folder, tmp_path / "cache", *words))
    for words, said in ((["data=planted"], "Nothing to pack"), (["data.fraction=0.5"], "holds all documents")):
        with pytest.raises(ConfigError, match=said):
            pack(tmp_path / "x.pack", compose(words))


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [w for w in tiny_overrides(folder) if w.startswith(("data", "tokenizer", "paths.cache"))]
    assert main([str(tmp_path / "c.pack"), *words]) == 0
    assert "data=packed data.path=" in capsys.readouterr().out
    assert (tmp_path / "c.pack").read_bytes() == (folder / "corpus.pack").read_bytes()
    assert main([str(tmp_path / "c.pack" / "below.pack"), *words]) == 2
    assert "Name another folder" in capsys.readouterr().err
    assert start(compose(packed(folder, tmp_path / "cache"))) == 0
