"""Figure 1's measure against values computed by hand."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from runhelpers import run, tiny_config
from test_import import bert

from albert_ablate.axes import Objective, Share
from albert_ablate.commands.export import main as export_command
from albert_ablate.data.batches import Batch
from albert_ablate.data.tokenizer import CLS, MASK, SEP
from albert_ablate.door.compose import compose
from albert_ablate.evaluation import similarity
from albert_ablate.evaluation.heldout import pair_set
from albert_ablate.evaluation.similarity import layer_similarity, token_change
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.encoder import Encoder
from albert_ablate.model.pretraining import build_model
from analysis.read.same_text import read_text, same_pairs, stores_of
from analysis.similarity import main as similarity_command
from analysis.similarity import measure, measure_all


def encoder(share: Share = Share.NONE) -> Encoder:
    return build_model(Architecture(61, 8, 32, 3, 4, 128, 24, share, initializer_range=0.2), 0).encoder


def batch(lengths: list[int], width: int = 9, masked: bool = False) -> Batch:
    ids = torch.zeros(len(lengths), width, dtype=torch.int32)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.arange(10, 10 + length) + row
        ids[row, 0], ids[row, length - 1] = CLS, SEP
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    positions = torch.tensor([1]) if masked else torch.zeros(0, dtype=torch.int64)
    targets = ids.flatten()[positions].long()
    if masked:
        ids.view(-1)[positions] = MASK
    return Batch(ids, torch.zeros_like(ids), mask, positions, targets, torch.zeros(len(lengths), dtype=torch.int64))


def test_distance_and_angle_by_hand() -> None:
    before = torch.tensor([[[3.0, 0.0], [1.0, 1.0], [2.0, 0.0]]])
    after = torch.tensor([[[0.0, 4.0], [2.0, 2.0], [-2.0, 0.0]]])
    distance, angle = token_change(before, after)
    assert distance[0].tolist() == pytest.approx([5.0, 2**0.5, 4.0])
    assert angle[0].tolist() == pytest.approx([90.0, 0.0, 180.0], abs=1e-5)


def test_equal_states_give_zero_and_never_nan() -> None:
    x = torch.randn(64, 50, 7, generator=torch.Generator().manual_seed(0))
    distance, angle = token_change(x, x)
    assert distance.max() == 0
    assert np.isfinite(angle).all()
    assert angle.max() < 1e-5


def test_angle_ignores_scale_and_distance_ignores_a_common_shift() -> None:
    x, y = (torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    np.testing.assert_allclose(token_change(x, 3 * y)[1], token_change(x, y)[1], rtol=1e-6)
    np.testing.assert_allclose(token_change(x + 2, y + 2)[0], token_change(x, y)[0], rtol=1e-5)


def test_on_a_cpu_the_numbers_are_those_of_numpys_norms_to_the_bit() -> None:
    """Which are what was recorded before the sums were taken where the states are."""
    a, b = (torch.randn(4, 33, 192, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    x, y = a.double().numpy(), b.double().numpy()
    cosine = (x * y).sum(-1) / (np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1))
    distance, angle = token_change(a, b)
    assert (distance == np.linalg.norm(y - x, axis=-1)).all()
    assert (angle == np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))).all()


def test_sums_of_the_device_agree_and_alone_come_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batches = encoder(), [batch([9, 3]), batch([5, 4, 7])]
    expected = layer_similarity(model, batches)
    moved: list[tuple[int, ...]] = []
    cpu = torch.Tensor.cpu

    def noted(tensor: torch.Tensor) -> torch.Tensor:
        moved.append(tuple(tensor.shape))
        return cpu(tensor)

    monkeypatch.setattr(torch.Tensor, "cpu", noted)
    monkeypatch.setattr(similarity, "_by_numpy", similarity._by_torch)
    found = layer_similarity(model, batches)
    for key in ("l2", "degrees", "l2_sd", "degrees_sd"):
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-12)
    layers = model.shape.layers
    assert moved == [(4, 2, 9)] * layers + [(4, 3, 9)] * layers, "no states, four sums for each token, once a layer"


def by_hand(model: Encoder, batches: list[Batch]) -> tuple[np.ndarray, np.ndarray]:
    """Means over tokens, one sequence at a time and without padding."""
    distances, angles = [], []
    for b in batches:
        for row in range(len(b)):
            n = int(b.mask[row].sum())
            with torch.no_grad():
                states = model.eval().hidden_states(b.input_ids[row : row + 1, :n], b.type_ids[row : row + 1, :n])
            for t in range(n):
                h = [s[0, t].double().numpy() for s in states]
                steps = list(pairwise(h))
                distances.append([np.linalg.norm(y - x) for x, y in steps])
                cosines = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in steps]
                angles.append([np.degrees(np.arccos(c)) for c in cosines])
    return np.mean(distances, axis=0), np.mean(angles, axis=0)


@pytest.mark.parametrize("share", list(Share))
def test_means_are_over_real_tokens_of_all_batches(share: Share) -> None:
    model, batches = encoder(share), [batch([9, 3]), batch([2]), batch([5, 4, 7])]
    found = layer_similarity(model, batches)
    distance, angle = by_hand(model, batches)
    np.testing.assert_allclose(found["l2"], distance, rtol=1e-5)
    np.testing.assert_allclose(found["degrees"], angle, rtol=1e-5)
    assert (found["tokens"], found["sequences"]) == (30, 6)
    assert len(found["l2"]) == len(found["degrees"]) == 3


def test_special_tokens_are_left_out_beside() -> None:
    model, b = encoder(), batch([9, 6])
    found = layer_similarity(model, [b])
    states = [s.detach() for s in model.hidden_states(b.input_ids, b.type_ids, b.mask)]
    ordinary = b.mask & (b.input_ids != CLS) & (b.input_ids != SEP)
    distance = token_change(states[0], states[1])[0][ordinary.numpy()].mean()
    assert found["without_special"]["l2"][0] == pytest.approx(distance, rel=1e-6)
    assert found["without_special"]["l2"][0] != pytest.approx(found["l2"][0], rel=1e-4)


def test_masks_are_undone() -> None:
    model = encoder()
    assert layer_similarity(model, [batch([9], masked=True)]) == layer_similarity(model, [batch([9])])


def test_dropout_is_off() -> None:
    model = build_model(Architecture(61, 8, 32, 3, 4, 128, 24, Share.ALL, hidden_dropout=0.5), 0).encoder.train()
    assert layer_similarity(model, [batch([9])]) == layer_similarity(model, [batch([9])])


def test_any_run_on_any_text_agrees_with_the_run_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(tiny_config(tmp_path, "evaluation.similarity_pairs=32"))
    held_out = next((tmp_path / "cache" / "text").glob("*/valid.txt"))
    found = measure(folder.path, held_out, sequences=32)
    recorded = folder.read("similarity.json")
    assert found["l2"] == pytest.approx(recorded["l2"], rel=1e-6)
    assert found["degrees"] == pytest.approx(recorded["degrees"], rel=1e-6)
    assert found["tokens"] == recorded["tokens"]
    steps = sorted((folder.path / "checkpoints").glob("step_*"))
    places = [str(folder.path), str(steps[0])]
    assert similarity_command([*places, "--text", str(held_out), "--out", str(tmp_path / "out")]) == 0
    assert folder.name in capsys.readouterr().out
    data = pd.read_csv(tmp_path / "out" / "figure1.csv")
    assert sorted(data["arm"].unique()) == [f"{folder.name}, {step.name}" for step in steps]
    first, second = (part["value"] for _, part in data.groupby("arm"))
    assert not np.allclose(first, second)


def test_places_and_texts_that_will_not_do_are_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tiny_config(tmp_path)).path
    (tmp_path / "short.txt").write_text("One sentence only.\n")
    for place, text, words in (
        (tmp_path, "short.txt", "neither a run folder"),
        (folder, "none.txt", "no such file"),
        (folder, "short.txt", "no two sentences"),
    ):
        assert similarity_command([str(place), "--text", str(tmp_path / text)]) != 0
        assert words in capsys.readouterr().err


def test_a_model_of_transformers_needs_no_import_first(tmp_path: Path) -> None:
    bert(tmp_path / "mine")
    text = tmp_path / "text.txt"
    text.write_text("The run is on. The running man runs.\n\n\nAbc abc, abc. The end is near.\n")
    found = measure(tmp_path / "mine", text)
    assert found["run"] == "mine"
    assert len(found["l2"]) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "text.txt"]


def test_a_name_that_nobody_knows_is_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text("One. Two.\n")
    assert similarity_command(["no such name", "--text", str(tmp_path / "text.txt")]) != 0
    assert "no such folder" in capsys.readouterr().err


# --- several models, one text and one length -----------------------------------------------------


@pytest.fixture(scope="module")
def run_and_text(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("several")
    config = tiny_config(place, "model.max_positions=64")
    return run(config).path, place / "corpus.txt"


def test_a_run_and_its_export_stand_on_one_length(
    run_and_text: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The export's own length is that of its positions: measured on that, the same weights had other rows."""
    place, text = run_and_text
    assert export_command([str(place), str(tmp_path / "exported")]) == 0
    capsys.readouterr()
    places = [place, tmp_path / "exported"]
    ours, theirs = measure_all(places, text, sequences=16)
    assert (ours["own_length"], theirs["own_length"]) == (32, 64)
    assert ours["length"] == theirs["length"] == 32
    assert (ours["tokens"], ours["sequences"]) == (theirs["tokens"], theirs["sequences"])
    for name in ("l2", "degrees"):
        assert theirs[name] == pytest.approx(ours[name], rel=1e-4)
    out = tmp_path / "out"
    words = [*map(str, places), "--text", str(text), "--sequences", "16"]
    assert similarity_command([*words, "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        f"{ours['tokens']:,} tokens of 16 sequences of up to 32 tokens (the shortest of the models' own, 32 to 64)"
        in said
    )
    assert set(pd.read_csv(out / "figure1.csv")["length"]) == {32}
    assert similarity_command([*words, "--length", "48"]) == 0
    assert "sequences of up to 48 tokens (the models' own length is 32 and 64)" in " ".join(
        capsys.readouterr().out.split()
    )
    assert measure(place, text, sequences=16, length=48)["tokens"] > ours["tokens"]


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--length", "65"], "--length 65: {run} takes sequences of 8 to 64 tokens"),
     (["--length", "7"], "Give --length 8"), (["--sequences", "0"], "--sequences 0: give 1 or more")],
)  # fmt: skip
def test_a_length_that_a_model_does_not_take_is_refused(
    words: list[str], said: str, run_and_text: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    place, text = run_and_text
    assert similarity_command([str(place), "--text", str(text), *words]) == 2
    assert said.format(run=place.name) in capsys.readouterr().err


def test_unlike_tokenizers_are_measured_on_one_text(
    run_and_text: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, text = run_and_text
    bert(tmp_path / "mine")
    found = measure_all([place, tmp_path / "mine"], text, sequences=16)
    assert found[0]["sequences"] == found[1]["sequences"] == 16
    assert found[0]["length"] == found[1]["length"] == 32
    assert found[0]["tokens"] != found[1]["tokens"]
    words = [str(place), str(tmp_path / "mine"), "--text", str(text), "--sequences", "16"]
    assert similarity_command(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "run tokens layer L2 degrees" in said
    for one in found:
        assert f"{one['run']} {one['tokens']:,} 1 {one['l2'][0]:.2f}" in said
    assert "16 sequences of up to 32 tokens" in said
    assert "the same text for all; their tokenizers divide it into different numbers of tokens" in said
    turned = measure_all([tmp_path / "mine", place], text, sequences=16)
    assert [one["l2"] for one in reversed(turned)] == [one["l2"] for one in found]


class Letters:
    """A tokenizer that makes ``pieces`` pieces of a letter, and none of what it does not know."""

    def __init__(self, pieces: int, unknown: str = "") -> None:
        self.pieces, self.unknown = pieces, unknown

    def encode(self, sentences: list[str]) -> list[list[int]]:
        return [
            [ord(c) for c in sentence for _ in range(self.pieces) if c not in self.unknown] for sentence in sentences
        ]


def test_the_same_sentences_fit_for_all() -> None:
    draw = np.random.default_rng(0)
    letters = "abcdefghij"
    documents = [
        ["".join(draw.choice(list(letters), draw.integers(1, 12))) for _ in range(draw.integers(1, 9))]
        for _ in range(40)
    ]
    documents[3] = ["x"]
    settings = compose(["pairs.max_length=32"]).pairs
    tokenizers: dict[str, Any] = {"one": Letters(1), "three": Letters(3), "x": Letters(2, unknown="x")}
    stores = stores_of(documents, tokenizers)
    assert {store.document_count for store in stores.values()} == {39}
    pairs = same_pairs(stores, settings, 100)
    assert len({len(found) for found in pairs.values()}) == 1
    assert len(pairs["one"]) > 20
    for number in range(len(pairs["one"])):
        texts = {}
        for name, found in pairs.items():
            assert found.a_length[number] + found.b_length[number] <= 29
            tokens = stores[name].tokens
            for part, start, length in (("a", found.a_start, found.a_length), ("b", found.b_start, found.b_length)):
                ids = tokens[start[number] : start[number] + length[number]]
                texts[name, part] = ids.tolist()
        for part in "ab":
            letter_counts = [len(texts["one", part]), len(texts["three", part]) / 3, len(texts["x", part]) / 2]
            assert max(letter_counts) - min(letter_counts) < 2  # a cut within a sentence may fall within a letter


def test_one_tokenizer_gives_the_sequences_of_a_run() -> None:
    documents = [["abc" * n, "de" * n, "f" * n, "gh"] for n in range(1, 20)]
    settings = compose(["pairs.max_length=32"])
    only: dict[str, Any] = {"one": Letters(1)}
    stores = stores_of(documents, only)
    expected = pair_set(settings, stores["one"], np.zeros(0), Objective.NONE, 10).pairs
    found = same_pairs(stores, settings.pairs, 10)["one"]
    for name in ("a_start", "a_length", "b_start", "b_length", "document", "ordinal"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_stated_form_is_kept_and_sentences_are_not_split_again(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One line. Not two.\nAnother line. Yes.\n\nThird line. Fourth.\n")
    data = compose(["data=text", "data.path=x", "data.format=sentences"]).data
    assert read_text(tmp_path / "a.txt", data)[0] == ["One line. Not two.", "Another line. Yes."]
    (tmp_path / "wiki").write_text(" = One = \n \n It is , so . It goes on . \n \n = Two = \n \n Yes , it is . \n")
    assert read_text(tmp_path / "wiki", compose().data) == [["It is, so.", "It goes on."], ["Yes, it is."]]
