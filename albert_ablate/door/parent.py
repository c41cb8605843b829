"""Settings that a run takes of the run that it continues (``init.run``); the rest are those of the command line."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from albert_ablate.axes import AXES, METHOD, MethodName
from albert_ablate.config.recorded import completed, read_recorded
from albert_ablate.config.schema import RunConfig
from albert_ablate.door.importing import imported_once, is_checkpoint
from albert_ablate.door.teacher import identity_of
from albert_ablate.errors import ConfigError

#: Groups that describe the model. An axis without a field in them belongs to the model too.
_MODEL = ("model", *(axis.group for axis in AXES if axis is not METHOD))
#: Settings of the group ``method`` that describe the model.
_OF_METHOD = ("token_types", "pooler")
#: Settings of a tokenizer that its file does not depend on, or that only its training reads.
_OF_ANY = ("model_path", "words", "character_coverage", "training_sentences")


def from_parent(composed: Mapping[str, Any], words: Sequence[str], defaults: Callable[[], RunConfig]) -> dict[str, Any]:
    """Full name -> value of the settings that come from the parent of a run; empty for a run without one.

    ``composed``: the settings as ``words`` give them. What a word names stays as it is: a setting, or a group with all
    of its settings. ``defaults``: the settings of an imported checkpoint that it does not say itself.

    Raises UserError if the parent is no finished run and no checkpoint.
    """
    init = composed.get("init") or {}
    named = init.get("run")
    if not isinstance(named, str):
        return {}
    said = {word.partition("=")[0].lstrip("+~") for word in words}
    folder = _folder(named, Path(str(composed["paths"]["cache"])), defaults)
    run_id = identity_of(folder, f"init.run={named}", "A run to continue")
    file = folder / "config.yaml"
    recorded = completed(_recorded(file, os.stat(file).st_mtime_ns), dict(composed))
    taken = {"init.run": str(folder), "init.weights": init.get("weights") or "parent"}
    if taken["init.weights"] == "parent" and init.get("run_id") is None:
        taken["init.run_id"] = run_id
    for group in _MODEL:
        taken |= dict(_unsaid(group, recorded[group], composed[group], said))
    taken |= _method(recorded["method"], composed["method"], said)
    if init.get("tokenizer") == "parent":
        taken |= _tokenizer(named, folder, recorded["tokenizer"], composed["tokenizer"], said)
    return taken


def _folder(named: str, cache: Path, defaults: Callable[[], RunConfig]) -> Path:
    """The run folder that ``init.run`` names; a checkpoint is imported into the cache once. Raises UserError."""
    path = Path(named).expanduser()
    if (path / "config.yaml").is_file():
        return path
    if is_checkpoint(path):
        return imported_once(path, cache, defaults)
    raise ConfigError(
        f"init.run={named}: no run folder, and no checkpoint in transformers' format (config.json, weights and "
        "tokenizer). Name one, such as runs/e128-all-sop-nano-s0-..., or leave it empty."
    )


@lru_cache(maxsize=64)
def _recorded(file: Path, written: int) -> dict[str, Any]:
    """Recorded settings, read once; ``written``: when the file was."""
    return read_recorded(file)


def _unsaid(
    group: str, recorded: Mapping[str, Any], composed: Mapping[str, Any], said: set[str]
) -> Iterator[tuple[str, Any]]:
    """The settings of a group that no word names, as the parent has them."""
    if group in said:
        return
    for key in composed:
        if f"{group}.{key}" not in said and key in recorded:
            yield f"{group}.{key}", recorded[key]


def _method(recorded: Mapping[str, Any], composed: Mapping[str, Any], said: set[str]) -> dict[str, Any]:
    """The parent's method; of one that needs another run first, what describes the model alone.

    A model whose parent has no table of token types gets none from another method's default.
    """
    if METHOD.group in said:
        without = composed["token_types"] is True and recorded["token_types"] is False
        return {"method.token_types": False} if without and "method.token_types" not in said else {}
    taken = dict(_unsaid(METHOD.group, recorded, composed, said))
    if not MethodName(recorded["name"]).needs_another_run:
        return taken
    return {name: value for name, value in taken.items() if name.partition(".")[2] in _OF_METHOD}


def _tokenizer(
    named: str, folder: Path, recorded: Mapping[str, Any], composed: Mapping[str, Any], said: set[str]
) -> dict[str, Any]:
    """The parent's tokenizer. Raises ConfigError if a word asks for another one."""
    from albert_ablate.data.vocabulary import named_pieces, tokenizer_file  # it loads a library of tokenizers

    size = named_pieces(folder, recorded["vocab_size"])  # further rows, which no text reads, are left behind
    recorded = {**recorded, "vocab_size": size, "model_path": str(tokenizer_file(folder))}
    whole = "tokenizer" in said
    asked = {key for key in composed if whole or f"tokenizer.{key}" in said} - {*_OF_ANY}
    asked = {key for key in asked if composed[key] != recorded[key] and (not whole or key == "name")}
    if asked and "tokenizer.model_path" not in said:
        raise ConfigError(
            [
                f"tokenizer.{key}={composed[key]}: the tokenizer of init.run={named} has {recorded[key]}. Leave it "
                "out, or give init.tokenizer=own for another tokenizer."
                for key in sorted(asked)
            ]
        )
    kept = (said - {"tokenizer"}) | ({"tokenizer.name"} if whole else set())
    return dict(_unsaid("tokenizer", recorded, composed, kept))
