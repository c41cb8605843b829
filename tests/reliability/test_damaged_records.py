"""Damaged files of a run folder, and folders that cannot be written, are answered in words by every command."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from outcomes import shown
from runhelpers import command_line, run, tiny_config, tiny_overrides

from albert_ablate.commands.evaluate import main as evaluate
from albert_ablate.commands.export import main as export
from albert_ablate.commands.finetune import main as finetune
from albert_ablate.commands.status import main as status
from albert_ablate.record.folder import RunFolder

COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "finetune": lambda run: [str(run), "task=word_order"],
    "export": lambda run: [str(run), str(run.parent / "out")],
    "evaluate": lambda run: [str(run)],
}
MAINS = {"finetune": finetune, "export": export, "evaluate": evaluate}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(tiny_config(tmp_path_factory.mktemp("whole")))


@pytest.mark.parametrize("content", [b"", b"a: [", b"\xff\xfe", b"- 1", b"scale: 3"], ids=repr)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_damaged_config(
    command: str, content: bytes, finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(finished.path, tmp_path / finished.name))
    (folder / "config.yaml").write_bytes(content)
    assert MAINS[command](COMMANDS[command](folder)) == 2
    assert f"{folder / 'config.yaml'} is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["manifest.json", "results.json"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_damaged_record(
    command: str, name: str, finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(finished.path, tmp_path / finished.name))
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    code = MAINS[command](COMMANDS[command](folder))
    err = capsys.readouterr().err
    if code:
        assert f"{folder / name} is damaged" in err
        assert not (folder / "tasks").exists(), "named before anything is trained"
    else:
        assert command == "evaluate", "it reads neither"
        assert (folder / name).read_bytes() == content[: len(content) // 2]
    shown("damaged record", "between runs", "named, nothing overwritten")


def test_a_damaged_status_is_named_and_nothing_is_trained(finished: RunFolder, tmp_path: Path) -> None:
    config = tiny_config(finished.path.parents[1], f"paths.runs={tmp_path}")
    folder = Path(shutil.copytree(finished.path, tmp_path / finished.name))
    (folder / "status.json").write_text('{"state": "fini')
    done = command_line(*tiny_overrides(finished.path.parents[1], f"paths.runs={tmp_path}"), cwd=tmp_path)
    assert done.returncode == 2
    assert "status.json is damaged. Remove it" in done.stderr
    assert "Traceback" not in done.stderr
    (folder / "status.json").unlink()
    assert run(config).state() == "finished"


def test_a_damaged_record_of_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".sweeps").mkdir()
    (tmp_path / ".sweeps" / "20260101T000000-demo.json").write_text('{"name": "de')
    assert status([str(tmp_path)]) == 2
    assert "is damaged" in capsys.readouterr().err


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize("which", ["runs", "cache"])
def test_a_folder_that_cannot_be_made(which: str, tmp_path: Path) -> None:
    done = command_line(*tiny_overrides(tmp_path), f"paths.{which}=/proc/nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert "/proc/nowhere" in done.stderr
    assert f"paths.{which}=..., which is /proc/nowhere" in done.stderr
    assert "Traceback" not in done.stderr
