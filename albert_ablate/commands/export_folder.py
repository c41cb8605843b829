"""The folder that an export writes: checks before the work, the tokenizer, and files that appear all at once."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from albert_ablate.config.schema import RunConfig
from albert_ablate.data.vocabulary import tokenizer_file
from albert_ablate.data.wordpiece import NAME as WORDPIECE
from albert_ablate.data.wordpiece import VOCABULARY, read_vocabulary
from albert_ablate.errors import RunFolderError
from albert_ablate.files import building, read_json, require_writable
from albert_ablate.record.folder import TOKENIZER, TOKENIZER_JSON

#: How the states of a text become one vector, in the words of ``LoadedRun.embed``.
Pool = Literal["mean", "cls"]
#: The subfolder of the pooling, and the names of poolings in its file.
POOLING = "1_Pooling"
_POOLS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")

if TYPE_CHECKING:  # it loads torch
    from albert_ablate.interop.exported import Exported


def require_free(out: Path) -> None:
    """Raise RunFolderError unless ``out`` can be written and is new or empty."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        problem = "exists already and is not empty" if out.is_dir() else "is a file that exists already"
        raise RunFolderError(f"{out} {problem}. Give the name of a new or an empty folder.")
    try:
        require_writable(out if out.exists() else out.parent)
    except OSError as error:
        raise RunFolderError(f"{out} cannot be written ({error.strerror}). Give a folder of your own.") from error


def require_tokenizer(run: Path) -> Path:
    """The run's file of its tokenizer. Raises RunFolderError if it keeps none."""
    source = tokenizer_file(run)
    if not source.is_file():
        raise RunFolderError(f"{run}: it keeps no {source.name}, so its tokenizer cannot be exported.")
    return source


@contextmanager
def filling(out: Path) -> Iterator[Path]:
    """Yield a temporary folder whose files move to ``out`` when the body succeeds."""
    # An empty folder is kept: it may be the working directory of a process.
    target = out / ".unfinished" if out.exists() else out
    with building(target) as folder:
        yield folder
    if target != out:
        for file in sorted(target.iterdir()):
            file.replace(out / file.name)
        target.rmdir()


def write_model(folder: Path, exported: "Exported") -> None:
    """Write weights and configuration, to a folder that may be new."""
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    save_file(exported.tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_values(folder / "config.json", {"architectures": [exported.architecture], **exported.config})


def write_tokenizer(run: Path, config: RunConfig, folder: Path, max_length: int | None = None) -> None:
    """Write the run's tokenizer; ``max_length``: tokens of the longest text, if not all positions are used."""
    from albert_ablate.interop.tokenizer_json import tokenizer_json

    source = tokenizer_file(run)
    longest = {} if max_length is None else {"model_max_length": max_length}
    write_values(folder / "tokenizer_config.json", tokenizer_settings(config) | longest)
    if config.tokenizer.name == WORDPIECE:  # rewritten: BertTokenizer reads a byte-order mark as part of a piece
        (folder / VOCABULARY).write_text("".join(f"{p}\n" for p in read_vocabulary(source)), encoding="utf-8")
        return
    shutil.copyfile(source, folder / TOKENIZER)
    kept = run / TOKENIZER_JSON  # of an imported run whose text cleaning differs from ours
    made = (
        read_json(kept) if kept.is_file() else tokenizer_json(source, config.tokenizer, config.method.reads_documents)
    )
    write_values(folder / TOKENIZER_JSON, made)


def tokenizer_settings(config: RunConfig) -> dict[str, Any]:
    """``tokenizer_config.json``."""
    types = ["token_type_ids"] if config.method.token_types else []
    common = {
        "tokenizer_class": _tokenizer_class(config),
        "model_max_length": config.model.max_positions,
        "model_input_names": ["input_ids", *types, "attention_mask"],
        "do_lower_case": config.tokenizer.lowercase,
    }
    if config.tokenizer.name == WORDPIECE:
        return common | {"strip_accents": config.tokenizer.strip_accents}
    marks = {"bos": "[CLS]", "cls": "[CLS]", "eos": "[SEP]", "sep": "[SEP]", "mask": "[MASK]"}
    marks |= {"pad": "<pad>", "unk": "<unk>"}
    named = {f"{name}_token": mark for name, mark in marks.items()}
    cleaning = {
        "keep_accents": not config.tokenizer.strip_accents,
        "split_digit_commas": config.tokenizer.split_digit_commas,
    }
    return common | cleaning | named


def _tokenizer_class(config: RunConfig) -> str:
    """A class that keeps tokenizer.json unchanged: AlbertTokenizer's own cleaning drops Indic vowels."""
    return "BertTokenizer" if config.tokenizer.name == WORDPIECE else "PreTrainedTokenizerFast"


def write_values(path: Path, values: Any) -> None:
    """Write ``values`` as indented JSON."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def write_pooling(folder: Path, config: RunConfig, pool: Pool) -> None:
    """Write the files that make an exported encoder a model of the package sentence-transformers.

    Its embedding is that of ``LoadedRun.embed``: the state at [CLS], or the mean over the text's tokens.
    """
    parts = [("", "Transformer"), (POOLING, "Pooling")]
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(parts)
    ]
    write_values(folder / "modules.json", modules)
    write_values(
        folder / "sentence_bert_config.json", {"max_seq_length": config.model.max_positions, "do_lower_case": False}
    )
    (folder / POOLING).mkdir()
    chosen = {f"pooling_mode_{name}": name == f"{pool}_token{'s' * (pool == 'mean')}" for name in _POOLS}
    write_values(folder / POOLING / "config.json", {"word_embedding_dimension": config.model.hidden, **chosen})
