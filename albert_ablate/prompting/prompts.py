"""Prompts as token ids: demonstrations, the question, and its options after them, within a model's positions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.errors import DataError
from albert_ablate.prompting.template import Template
from albert_ablate.tasks.questions import Question

#: What stands in place of a question's fields in prompts without content (Zhao et al., 2021). Plain text in each case.
CONTENT_FREE = ("N/A", "[MASK]", "")


@dataclass(frozen=True)
class Prompt:
    """A prompt and its options, without special tokens."""

    context: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    shots: tuple[Question, ...] = ()  # the demonstrations in it, in order
    cut: int = 0  # tokens that were cut from its beginning, as not even the question alone fitted
    moved: bool = False  # whether the options begin before the prompt's end, inside a token that spans both


def divided(tokenizer: Tokenizer, context: str, options: Sequence[str], joint: str) -> Prompt:
    """``context`` and each option after it as one text, divided where the options begin.

    Tokens of both apart are not those of the whole. So the whole is encoded, and the tokens of the context must be the
    first of it. Where they are not, the cut moves back to where all wholes agree with it. Raises DataError if an
    option then has no token of its own, or two have the same.
    """
    before = context.strip()
    texts = [f"{before}{joint}{option}" if before else option for option in options]
    encoded = tokenizer.encode([before, *texts])
    whole, ids = encoded[1:], encoded[0]
    start = min(_common(ids, row) for row in whole)
    parts = tuple(tuple(row[start:]) for row in whole)
    for option, part in zip(options, parts, strict=True):
        if not part:
            raise DataError(f"the option {option!r} has no token of its own after {before[-40:]!r}. Use other words.")
    if len(set(parts)) < len(parts):
        twin = next(option for place, option in enumerate(options) if parts[place] in parts[:place])
        raise DataError(
            f"the option {twin!r} has the same tokens as another one: the tokenizer lacks its letters. Use other words."
        )
    return Prompt(tuple(ids[:start]), parts, moved=start < len(ids))


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning."""
    return next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


class Prompts:
    """Makes the prompts of a task."""

    def __init__(self, template: Template, tokenizer: Tokenizer, room: int) -> None:
        """``room``: most tokens of a prompt with an option."""
        self.template = template
        self._tokenizer, self._room = tokenizer, room
        self._length = lru_cache(maxsize=1 << 16)(lambda text: len(tokenizer.encode([text])[0]))

    def of(self, question: Question, demonstrations: Sequence[Question]) -> Prompt:
        """The question after as many of its ``demonstrations`` as fit; the last of them are dropped first.

        The question itself is never cut, unless it does not fit alone: then its beginning is. Raises DataError if an
        option alone does not fit.
        """
        texts = [self._answered(demonstration) for demonstration in demonstrations]
        lengths = [self._length(text) for text in texts]
        shots = len(texts)
        # Lengths of parts give about that of the whole: what is certainly too long need not be encoded.
        while shots and sum(lengths[:shots]) - 2 * shots > self._room:
            shots -= 1
        while True:
            prompt = self._after(texts[:shots], question.fields, question.options)
            if not shots or self._over(prompt) <= 0:
                break
            shots -= 1
        return self._shortened(prompt, tuple(demonstrations[:shots]))

    def content_free(self, question: Question, shots: Sequence[Question]) -> list[Prompt]:
        """The same prompt, with each of ``CONTENT_FREE`` in place of the question's fields."""
        texts = [self._answered(shot) for shot in shots]
        contents = [dict.fromkeys(question.fields, content) for content in CONTENT_FREE]
        return [self._shortened(self._after(texts, fields, question.options), ()) for fields in contents]

    def neutral(self, options: tuple[str, ...]) -> Prompt:
        """The options after the neutral prompt of the template."""
        words = self.template.words(options)
        return self._shortened(divided(self._tokenizer, self.template.neutral or "", words, self.template.joint), ())

    def _answered(self, question: Question) -> str:
        words = self.template.words(question.options)
        return self.template.answered(question.fields, words[question.answer])

    def _after(self, texts: Sequence[str], fields: Mapping[str, str], options: tuple[str, ...]) -> Prompt:
        context = "".join([*texts, self.template.asked(fields)])
        return divided(self._tokenizer, context, self.template.words(options), self.template.joint)

    def _over(self, prompt: Prompt) -> int:
        """By how many tokens prompt and longest option exceed the room."""
        return len(prompt.context) + max(map(len, prompt.options)) - self._room

    def _shortened(self, prompt: Prompt, shots: tuple[Question, ...]) -> Prompt:
        """The prompt, with its beginning cut if it does not fit. Raises DataError if not even an option fits."""
        cut = max(self._over(prompt), 0)
        if cut > len(prompt.context):
            raise DataError(
                f"an option has {max(map(len, prompt.options))} tokens, but the model reads {self._room}. "
                "Use shorter options, or leave out questions with long ones."
            )
        return Prompt(prompt.context[cut:], prompt.options, shots, cut, prompt.moved)
