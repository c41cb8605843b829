"""A checkpoint of another program as a run folder (part of the door)."""

import json
import shutil
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from albert_ablate.axes import MethodName
from albert_ablate.config.parse import parse
from albert_ablate.config.schema import RunConfig
from albert_ablate.console import say
from albert_ablate.errors import DataError, ForeignCheckpointError, RunFolderError
from albert_ablate.files import building, digest, require_writable, sha256_file, write_json
from albert_ablate.record.folder import TOKENIZER_JSON, RunFolder
from albert_ablate.record.manifest import Imported as ImportedRecord
from albert_ablate.record.results import Results
from albert_ablate.shipped import install_command

if TYPE_CHECKING:
    from torch import Tensor

    from albert_ablate.interop.imported import Imported
    from albert_ablate.interop.tokenizer_read import ForeignTokenizer

_WANTED = [
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "spiece.model",
    "vocab.txt",
    "tokenizer*.json",
    "added_tokens.json",
]
_STEP = "step_00000000"


def is_checkpoint(path: Path) -> bool:
    """Whether a folder looks like a checkpoint in transformers' format."""
    return (path / "config.json").is_file()


def imported_once(path: Path, cache: Path, defaults: Callable[[], RunConfig]) -> Path:
    """The run folder in the cache that the checkpoint in ``path`` becomes, keyed by the content of its files.

    It has the name of ``path``. See ``import_checkpoint``.
    """
    files = sorted(file for pattern in (*_WANTED, "pytorch_model*") for file in path.glob(pattern) if file.is_file())
    key = digest({file.name: _hash(file, file.stat().st_mtime_ns, file.stat().st_size) for file in files}, 12)
    out = cache / "imported" / key / path.resolve().name
    if not (out / "config.yaml").is_file():
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            import_checkpoint(str(path), out, defaults)
        except RunFolderError:
            if not (out / "config.yaml").is_file():  # else another process was faster
                raise
        say(f"{path}: imported into {out}")
    return out


@lru_cache(maxsize=256)  # every cell of a sweep asks
def _hash(file: Path, written: int, size: int) -> str:
    return sha256_file(file)


def import_checkpoint(name: str, out: Path, defaults: Callable[[], RunConfig]) -> "Imported":
    """Write the run folder ``out``; returns the imported model. Raises UserError.

    ``defaults``: gives the settings that a checkpoint does not say itself.
    """
    if out.exists():
        raise RunFolderError(f"{out} exists already. Give the name of a new folder, or remove it.")
    try:
        require_writable(out.parent)
    except OSError as error:
        raise RunFolderError(
            f"{out.parent} cannot be written ({error.strerror}). Name a folder of your own."
        ) from error
    from albert_ablate.interop.config_json import complete, kept_for_export
    from albert_ablate.interop.imported import from_huggingface
    from albert_ablate.interop.tensorflow import CONFIG, checkpoint_prefix, read_release
    from albert_ablate.interop.tokenizer_read import find_tokenizer
    from albert_ablate.interop.weights import read_tensors

    prefix = checkpoint_prefix(name)
    folder = _folder(name) if prefix is None else prefix.parent
    if prefix is None:
        foreign_config = _json(folder / "config.json")
        complete(foreign_config)  # before reading the weights, which may be large
        tensors, files = read_tensors(folder)
        files.append(folder / "config.json")
    else:
        foreign_config, tensors, files = read_release(prefix)
        files.append(folder / CONFIG)
    imported = from_huggingface(foreign_config, tensors)
    with tempfile.TemporaryDirectory() as scratch:
        predicts_next = MethodName(imported.settings.get("method", {}).get("name", MethodName.MLM)).predicts_next
        settings = _json(folder / "tokenizer_config.json", needed=False)
        tokenizer = find_tokenizer(folder, settings, Path(scratch), predicts_next)
        config = _config(out.name, imported, tokenizer, defaults())
        origin = ImportedRecord(
            from_=name,
            files={file.name: sha256_file(file) for file in (*files, *tokenizer.read)},
            missing=list(imported.missing),
            left_out=list(imported.left_out),
            **kept_for_export(foreign_config),
        )
        _write(out, config, imported, tokenizer, origin)
    return imported


def _folder(name: str) -> Path:
    """The local folder ``name``, or a download of the hub's repository ``name``. Raises DataError."""
    if Path(name).is_dir():
        return Path(name)
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        raise DataError(f"{name}: no such folder. Names on the hub need `{install_command('huggingface')}`.") from error
    try:
        folder = Path(snapshot_download(name, allow_patterns=_WANTED))
        if not list(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[*_WANTED, "pytorch_model*"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(
            f"{name}: no such folder, and the hub gave nothing ({type(error).__name__}). Without network access, "
            "name a folder with config.json, weights and tokenizer."
        ) from error
    return folder


def _json(path: Path, needed: bool = True) -> dict[str, Any]:
    if not path.is_file():
        if needed:
            raise ForeignCheckpointError(f"{path.parent}: no {path.name} there; is it a checkpoint of transformers?")
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ForeignCheckpointError(f"{path}: not JSON ({error}).") from None
    if not isinstance(values, dict):
        raise ForeignCheckpointError(f"{path}: a JSON object is expected.")
    return values


def _config(name: str, imported: "Imported", tokenizer: "ForeignTokenizer", defaults: RunConfig) -> RunConfig:
    """The settings of the imported model; all others are ``defaults``."""
    values = defaults.as_dict()
    for group, settings in imported.settings.items():
        values[group] |= settings
    values["tokenizer"] |= {"name": tokenizer.name, "lowercase": tokenizer.lowercase}
    values["tokenizer"] |= {
        "strip_accents": tokenizer.strip_accents,
        "split_digit_commas": tokenizer.split_digit_commas,
    }
    values["model"]["name"] = name
    values["scale"]["name"] = "imported"
    values["pairs"]["max_length"] = min(values["pairs"]["max_length"], values["model"]["max_positions"])
    return parse(values)


def _state(config: RunConfig, imported: "Imported", vocabulary: Path) -> "dict[str, Tensor]":
    """Every tensor of our model; missing heads have initial weights. Raises ForeignCheckpointError."""
    import torch

    from albert_ablate.data.wordpiece import NAME, read_vocabulary, row_order
    from albert_ablate.interop.imported import some
    from albert_ablate.methods import method_of
    from albert_ablate.model.heads import PIECE_ROWS

    state, tensors = method_of(config).build({}).state_dict(), dict(imported.tensors)
    wrong = [
        f"{name} is {list(tensor.shape)}, {list(state[name].shape)} expected"
        for name, tensor in sorted(tensors.items())
        if state[name].shape != tensor.shape
    ]
    if wrong:
        raise ForeignCheckpointError(f"The tensors do not fit config.json: {some(wrong)}.")
    if config.tokenizer.name == NAME:
        order = torch.from_numpy(row_order(read_vocabulary(vocabulary), config.tokenizer.vocab_size, vocabulary))
        tensors |= {name: rows[order] for name, rows in tensors.items() if name.endswith(PIECE_ROWS)}
    return state | tensors


def _write(
    out: Path, config: RunConfig, imported: "Imported", source: "ForeignTokenizer", origin: ImportedRecord
) -> None:
    from safetensors.torch import save_file

    from albert_ablate.data.vocabulary import open_tokenizer
    from albert_ablate.training.checkpoint import WEIGHTS
    from albert_ablate.training.describe import describe_import

    tokenizer = open_tokenizer(source.file, config.tokenizer)
    if tokenizer.vocab_size != config.tokenizer.vocab_size:
        raise DataError(
            f"{source.read[0]}: {tokenizer.vocab_size} pieces, but the model has {config.tokenizer.vocab_size}."
        )
    state = _state(config, imported, source.file)
    identity = digest(origin.files, 12)
    with building(out) as folder:
        step = folder / "checkpoints" / _STEP
        step.mkdir(parents=True)
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, step / WEIGHTS)
        meta = {"step": 0, "identity": identity, "sha256": {WEIGHTS: sha256_file(step / WEIGHTS)}}
        write_json(step / "meta.json", meta)
        (folder / "config.yaml").write_text(
            yaml.safe_dump(config.as_dict(), sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
        shutil.copyfile(source.file, folder / tokenizer.kept_as)
        if source.kept is not None:
            shutil.copyfile(source.kept, folder / TOKENIZER_JSON)
        run = RunFolder(folder.parent, folder.name)
        run.write("manifest.json", describe_import(config, out.name, identity, origin, tokenizer))
        run.write("results.json", Results(imported=origin))
        run.set_status("finished")
