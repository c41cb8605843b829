"""Figure 1's measure against values computed by hand."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from runhelpers import run, tiny_config
from test_import import bert

from albert_ablate.axes import Share
from albert_ablate.data.batches import Batch
from albert_ablate.data.tokenizer import CLS, MASK, SEP
from albert_ablate.evaluation.similarity import layer_similarity, token_change
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.encoder import Encoder
from albert_ablate.model.pretraining import build_model
from analysis.similarity import main as similarity_command
from analysis.similarity import measure


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
    assert not np.allclose(*(part["value"] for _, part in data.groupby("arm")))


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
