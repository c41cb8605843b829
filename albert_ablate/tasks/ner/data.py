"""Reads named entities: columns as in CoNLL-2003 (Tjong Kim Sang and De Meulder, 2003), or JSON lines with spans."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from albert_ablate.config.tasks import FineTuneConfig, NerConfig
from albert_ablate.data.text import side_of
from albert_ablate.errors import DataError
from albert_ablate.files import open_text
from albert_ablate.tasks.ner.generated import generated_sentences
from albert_ablate.tasks.ner.sentences import Sentence, of_text, of_words, tagged
from albert_ablate.tasks.ner.tags import Scheme, entities, label_of, parts, scheme_of, to_iob2
from albert_ablate.tasks.tables import Row, find, json_rows, named
from albert_ablate.tasks.texts.examples import limited
from albert_ablate.tasks.texts.labels import close, listed

#: Set -> names of its file without ending, the official one first.
_STEMS = {
    "train": ("eng.train", "train"), "dev": ("eng.testa", "dev", "valid"), "test": ("eng.testb", "test"),
}  # fmt: skip
_ENDINGS = ("", ".txt", ".conll", ".tsv", ".iob", ".bio", ".jsonl")
_DOCUMENT = "-DOCSTART-"
_JSON = (".jsonl", ".json", ".ndjson")
_HERE = "docs/tasks.md, named entities"


@dataclass
class TaggedSets:
    """A task's sentences, in the order of its files."""

    labels: tuple[str, ...]  # of entities, in order
    train: list[Sentence]
    dev: dict[str, list[Sentence]]  # the first set chooses the checkpoint
    counts: dict[str, Any] = field(default_factory=dict)


def require_seqeval(name: str) -> None:
    """Raise DataError if the package seqeval is not installed."""
    try:
        import seqeval  # noqa: F401
    except ModuleNotFoundError as error:
        from albert_ablate.shipped import install_command

        raise DataError(f"task={name}: entities are scored by seqeval. Run `{install_command('ner')}`.") from error


def ner_files(common: FineTuneConfig, task: NerConfig) -> dict[str, Path]:
    """``train``, and ``dev`` and ``test`` where they exist. Raises DataError if a file is missing."""
    where = f"tasks.{task.name}"
    given = {"train": task.train_file, "dev": task.dev_file, "test": task.test_file}
    files = {side: named(f"{where}.{side}_file", file) for side, file in given.items() if file is not None}
    if "train" not in files:
        files["train"] = _official(common, f"{where}.train_file", "train")
    if task.train_file is None:
        for side in ("dev", "test"):
            if side not in files:
                try:
                    files[side] = _official(common, f"{where}.{side}_file", side)
                except DataError:
                    continue
    return {side: files[side] for side in given if side in files}


def _official(common: FineTuneConfig, setting: str, side: str) -> Path:
    first: DataError | None = None
    for stem in _STEMS[side]:
        try:
            return find(setting, common.data_dir, ("CoNLL-2003", "conll2003", "NER"), stem, _ENDINGS)
        except DataError as error:
            first = first or error
    assert first is not None
    raise first


def read_ner(task: NerConfig, files: dict[str, Path] | None) -> TaggedSets:
    """The sentences of a task; ``files`` None: generated. Without a dev file, some training sentences are held out.

    Raises DataError for malformed rows, tags of other schemes, labels that the training file lacks or that differ only
    in spelling, spans that overlap or leave their text, and sets without entities.
    """
    require_seqeval(task.name)
    counts: dict[str, Any] = {}
    if files is None:
        sets = generated_sentences(task.sentences)
        schemes: dict[str, Scheme] = dict.fromkeys(sets, "IOB2")
        notes: list[str] = []
    else:
        read = {side: read_file(file) for side, file in files.items()}
        sets = {side: content.sentences for side, content in read.items()}
        schemes = {side: content.scheme for side, content in read.items()}
        counts["entities_that_split_a_word"] = {side: content.split_words for side, content in read.items()}
        notes = _file_notes(read)
    labels = _labels(task, sets["train"], "generated" if files is None else str(files["train"]))
    for side, sentences in sets.items():
        _require_known(task, sentences, labels, side if files is None else str(files[side]))
    train = sets.pop("train")
    if "dev" not in sets:
        held = [side_of(sentence.text, task.dev_fraction) == "valid" for sentence in train]
        sets = {"dev": [s for s, out in zip(train, held, strict=True) if out], **sets}
        train = [s for s, out in zip(train, held, strict=True) if not out]
    train = limited(train, task.max_train, "train")
    dev = {name: limited(sentences, task.max_dev, "dev") for name, sentences in sets.items()}
    if not train or not dev["dev"]:
        raise DataError(
            f"tasks.{task.name}: {len(train)} training and {len(dev['dev'])} dev sentences; name a file with "
            f"tasks.{task.name}.dev_file, or raise tasks.{task.name}.dev_fraction."
        )
    seen = {sentence.text for sentence in train}
    counts |= {
        "train": len(train), "dev": {name: len(of_set) for name, of_set in dev.items()},
        "dev_texts_also_in_train": {name: sum(s.text in seen for s in of_set) for name, of_set in dev.items()},
        "tag_schemes": {side: str(scheme) for side, scheme in schemes.items() if scheme != "none"},
        "words": {name: sum(len(s.words) for s in of_set) for name, of_set in {"train": train, **dev}.items()},
        "entities": {name: _entities(of_set) for name, of_set in {"train": train, **dev}.items()},
        "notes": [*notes, *_label_notes(labels, train, dev)],
    }  # fmt: skip
    return TaggedSets(labels, train, dev, counts)


@dataclass(frozen=True)
class TaggedFile:
    """The content of one file."""

    sentences: list[Sentence]  # with tags in IOB2
    scheme: Scheme
    split_words: int = 0  # spans that begin or end inside of a word


def read_file(path: Path) -> TaggedFile:
    """The sentences of a file of columns or of JSON lines. Raises DataError."""
    if path.name.lower().removesuffix(".xz").removesuffix(".gz").endswith(_JSON):
        return _read_spans(path)
    return _read_columns(path)


def _read_columns(path: Path) -> TaggedFile:
    raw: list[tuple[int, list[str], list[str]]] = []
    columns: int | None = None
    for block in blocks(path):
        if columns is None:
            columns = len(block[0][1])
        for line, cells in block:
            if len(cells) != columns:
                raise DataError(
                    f"{path}, line {line}: {len(cells)} columns, but {columns} before it. Each line is a word with "
                    f"its columns, the tag last, and an empty line ends a sentence. See {_HERE}."
                )
            if len(cells) < 2:
                raise DataError(
                    f"{path}, line {line}: {cells[0]!r} has no tag; the last column is the tag. See {_HERE}."
                )
            if parts(cells[-1]) is None:
                raise DataError(
                    f"{path}, line {line}: {cells[-1]!r} is no tag. Tags are O, B-LABEL and I-LABEL (IOB1 or IOB2); "
                    "convert other schemes, such as BIOES, to IOB2."
                )
        raw.append((block[0][0], [cells[0] for _, cells in block], [cells[-1] for _, cells in block]))
    if not raw:
        raise DataError(f"{path}: no sentences; a line for each word is expected. See {_HERE}.")
    scheme = scheme_of([tags for _, _, tags in raw])
    return TaggedFile([of_words(words, to_iob2(tags), str(line)) for line, words, tags in raw], scheme)


def blocks(path: Path) -> Iterator[list[tuple[int, list[str]]]]:
    """The (line, cells) of each sentence; lines that begin a document are left out."""
    block: list[tuple[int, list[str]]] = []
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            text = line.rstrip("\r\n")
            cells = [cell.strip(" ") for cell in text.split("\t")] if "\t" in text else re.findall("[^ ]+", text)
            cells = cells if any(cells) else []
            if cells and cells[0] != _DOCUMENT:
                if not all(cells):
                    raise DataError(
                        f"{path}, line {number}: column {cells.index('') + 1} is empty. Each line is a word with its "
                        f"columns, the tag last. See {_HERE}."
                    )
                block.append((number, cells))
            elif block:
                yield block
                block = []
    if block:
        yield block


def _read_spans(path: Path) -> TaggedFile:
    made, inside = [], 0
    for row in json_rows(path):
        sentence = of_text(_text(row), str(row.line))
        spans = _spans(row, sentence.text)
        tags, widened, twice = tagged(sentence, spans)
        if twice is not None:
            raise row.error(
                f"entity {list(spans[twice])} shares a word with another one. A word has one label: keep one of them."
            )
        inside += widened
        made.append(replace(sentence, tags=tags))
    if not made:
        raise DataError(f"{path}: no rows; each line is an object with text and entities. See {_HERE}.")
    return TaggedFile(made, "none", inside)


def _text(row: Row) -> str:
    value = row.values.get("text")
    if not isinstance(value, str):
        raise row.error(f"a text is expected under 'text', {type(value).__name__} found. See {_HERE}.")
    try:
        value.encode()
    except ValueError as error:
        raise row.error(f"'text': {error}.") from error
    return value


def _spans(row: Row, text: str) -> list[tuple[int, int, str]]:
    """The spans of a row, in order. Raises DataError for anything else than characters of the text with a label."""
    keys = [key for key in ("entities", "spans") if key in row.values]
    if len(keys) != 1:
        found = "both are there" if keys else f"there are {', '.join(row.values) or 'no keys'}"
        raise row.error(f"a list under 'entities' or 'spans' is expected; {found}. A text without any has [].")
    listed_spans = row.values[keys[0]]
    if not isinstance(listed_spans, list):
        raise row.error(f"{keys[0]!r} holds {type(listed_spans).__name__}; a list is expected. See {_HERE}.")
    spans = []
    for span in listed_spans:
        values: list[Any] = [span.get(key) for key in ("start", "end", "label")] if isinstance(span, dict) else []
        if [type(value) for value in values] != [int, int, str] or not values[2].strip():
            raise row.error(f'{span!r} in {keys[0]!r}: {{"start": 0, "end": 5, "label": "PER"}} is expected.')
        start, end, label = values
        if not 0 <= start < end <= len(text):
            raise row.error(
                f"entity {[start, end, label]} is not in its text of {len(text)} characters. start is its first "
                "character, from 0; end is the one after its last."
            )
        if any(character.isspace() for character in label):
            raise row.error(
                f"label {label!r} has white space in it. Join its words, as in {'_'.join(label.split())!r}."
            )
        if not text[start:end].strip():
            raise row.error(f"entity {[start, end, label]} covers only white space. Leave it out.")
        spans.append((start, end, label))
    return sorted(spans)


def _labels(task: NerConfig, train: Sequence[Sentence], where: str) -> tuple[str, ...]:
    """The labels, as set or those of the training file, sorted. Raises DataError without any and for near spellings."""
    if task.labels is not None:
        return task.labels
    found = tuple(sorted({label_of(tag) for sentence in train for tag in sentence.tags or ()} - {""}))
    if not found:
        raise DataError(f"tasks.{task.name}: {where} has no entity. The tag is the last column. See {_HERE}.")
    spellings: dict[Any, str] = {}
    for label in found:
        other = spellings.setdefault(close(label), label)
        if other != label:
            raise DataError(
                f"tasks.{task.name}: {where} has the labels {other!r} and {label!r}, which differ only in how they are "
                f"written. Write one of them everywhere, or list all labels in tasks.{task.name}.labels."
            )
    return found


def _require_known(task: NerConfig, sentences: Sequence[Sentence], labels: Sequence[str], where: str) -> None:
    for sentence in sentences:
        unknown = sorted({label_of(tag) for tag in sentence.tags or ()} - {"", *labels})
        if unknown:
            known = f"tasks.{task.name}.labels" if task.labels is not None else "the training file"
            raise DataError(
                f"{where}, from line {sentence.id}: label {unknown[0]!r} is not in {known}, which has "
                f"{listed(labels)}. List every label in tasks.{task.name}.labels."
            )


def _file_notes(read: Mapping[str, TaggedFile]) -> list[str]:
    notes = [
        f"{side}: some entities begin with I-, others with a B- that IOB1 has not there; both are read as beginnings"
        for side, content in read.items()
        if content.scheme == "mixed"
    ]
    return notes + [
        f"{side}: {content.split_words:,} entities begin or end inside of a word; the whole word counts"
        for side, content in read.items()
        if content.split_words
    ]


def _entities(sentences: Sequence[Sentence]) -> int:
    return sum(len(entities(sentence.tags or ())) for sentence in sentences)


def _label_notes(labels: Sequence[str], train: Sequence[Sentence], dev: dict[str, list[Sentence]]) -> list[str]:
    notes = []
    for name, sentences in {"training": train, **dev}.items():
        present = {label_of(tag) for sentence in sentences for tag in sentence.tags or ()}
        missing = [label for label in labels if label not in present]
        if missing:
            notes.append(f"no {name} entity of {len(missing)} of {len(labels)} labels: {listed(missing)}")
    return notes
