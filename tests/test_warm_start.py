"""A deeper network begins with the weights of a shallower one, which is trained first."""

from pathlib import Path
from typing import Any

import pytest
from runhelpers import newest_checkpoint, run, run_folders, start, tiny_config, weights_of
from safetensors.torch import load_file
from torch import Tensor

from albert_ablate.config.identity import identity
from albert_ablate.errors import ConfigError, LockedError, PreemptedError
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.lock import locked
from albert_ablate.training.trainer import Trainer

WARM = ["model.layers=4", "warm_start.layers=[1,2]", "model.name=deep-4x32"]


def named(tmp_path: Path, layers: int, runs: str = "runs") -> RunFolder:
    (found,) = [f for f in run_folders(tmp_path / runs) if f"-{layers}x32-" in f.name]
    return RunFolder(found.parent, found.name)


@pytest.fixture
def first_weights(monkeypatch: pytest.MonkeyPatch) -> dict[int, dict[str, Tensor]]:
    """Weights of each depth before its first step."""
    seen: dict[int, dict[str, Tensor]] = {}
    real = Trainer.fit

    def fit(self: Trainer) -> Any:
        seen[self.config.model.layers] = {k: v.clone() for k, v in self.model.state_dict().items()}
        return real(self)

    monkeypatch.setattr(Trainer, "fit", fit)
    return seen


@pytest.mark.parametrize("share", ["all", "none"])
def test_each_depth_starts_from_the_one_before(
    tmp_path: Path, first_weights: dict[int, dict[str, Tensor]], share: str
) -> None:
    assert start(tiny_config(tmp_path, *WARM, f"share={share}")) == 0
    assert sorted(first_weights) == [1, 2, 4]
    for shallow, deep in ((1, 2), (2, 4)):
        trained = load_file(newest_checkpoint(named(tmp_path, shallow)) / "model.safetensors")
        begun = first_weights[deep]
        assert all(begun[name].equal(trained[name]) for name in begun if name in trained)
        own = sorted(begun.keys() - trained.keys())
        record = named(tmp_path, deep).read("warm_start.json")
        assert record == {"from": named(tmp_path, shallow).name, "tensors_of_its_own": own}
        assert bool(own) == (share == "none")  # full sharing has the same tensors at every depth


def test_a_shallower_run_that_is_there_is_used_whatever_it_is_called(tmp_path: Path) -> None:
    shallow = run(tiny_config(tmp_path, "model.layers=1", "model.name=mine"))
    assert start(tiny_config(tmp_path, "model.layers=2", "warm_start.layers=[1]", "model.name=deep")) == 0
    assert len(run_folders(tmp_path / "runs")) == 2
    (deep,) = [f for f in run_folders(tmp_path / "runs") if "deep" in f.name]
    assert RunFolder(deep.parent, deep.name).read("warm_start.json")["from"] == shallow.name


def test_a_warm_start_is_part_of_the_identity(tmp_path: Path) -> None:
    def of(*words: str) -> str:
        return identity(tiny_config(tmp_path, "model.layers=4", *words), "store", "fp32")

    assert len({of(), of("warm_start.layers=[1]"), of("warm_start.layers=[1,2]")}) == 3


def test_an_interrupted_warm_start_goes_on_from_its_own_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(tiny_config(tmp_path, *WARM, runs="straight"))
    broken, real = tiny_config(tmp_path, *WARM, runs="broken"), Trainer.update

    def stopped(self: Trainer, step: int, *rest: Any) -> Any:
        if self.config.model.layers == 4 and step == 6:
            raise PreemptedError("pulled the plug")
        return real(self, step, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "update", stopped)
        with pytest.raises(PreemptedError):
            start(broken)
    start(broken)
    assert weights_of(named(tmp_path, 4, "broken")) == weights_of(named(tmp_path, 4, "straight"))


def test_a_start_that_another_process_trains_is_left_to_it(tmp_path: Path) -> None:
    shallow = run(tiny_config(tmp_path, "model.layers=1", "model.name=mine"))
    shallow.set_status("running")
    with locked(shallow.path), pytest.raises(LockedError):
        start(tiny_config(tmp_path, "model.layers=2", "warm_start.layers=[1]"))


@pytest.mark.parametrize("layers", ["[2]", "[3]", "[1,1]", "[0]"])
def test_depths_that_do_not_grow_are_refused(tmp_path: Path, layers: str) -> None:
    with pytest.raises(ConfigError, match=r"warm_start\.layers"):
        tiny_config(tmp_path, "model.layers=2", f"warm_start.layers={layers}")
