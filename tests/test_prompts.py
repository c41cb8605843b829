"""Prompts: rules with scores computed by hand, demonstrations drawn by hashes, and what fits a model."""

import math
from pathlib import Path
from typing import Any

import pytest
from taskhelpers import tokenizer_of, write_squad, write_sst2, write_tsv

from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.door.compose import compose
from albert_ablate.errors import ConfigError, DataError
from albert_ablate.prompting.draw import Demonstrations
from albert_ablate.prompting.prompts import Prompts, divided
from albert_ablate.prompting.rules import RULES, OptionScores, credit
from albert_ablate.prompting.template import Template, load_template, require_fitting
from albert_ablate.tasks.load import locate
from albert_ablate.tasks.questions import Question, Questions, read_questions
from albert_ablate.tasks.texts.glue import GLUE

#: Four options with log-probabilities for which every rule has another winner.
FOUR = [
    OptionScores("yes", [-1.0], null=-0.3),
    OptionScores("not at all", [-0.9, -0.4, -0.3], null=-2.9),
    OptionScores("possibly not", [-0.9, -0.35], null=-1.2),
    OptionScores("never", [-3.0], null=-5.0),
]


@pytest.mark.parametrize(
    ("rule", "scores", "winner"),
    [
        ("sum", [-1.0, -1.6, -1.25, -3.0], 0), ("token", [-1.0, -0.5333, -0.625, -3.0], 1),
        ("byte", [-0.3333, -0.16, -0.1042, -0.6], 2), ("null", [-0.7, 1.3, -0.05, 2.0], 3),
    ],
)  # fmt: skip
def test_four_rules_have_four_winners(rule: Any, scores: list[float], winner: int) -> None:
    assert RULES[rule](FOUR) == pytest.approx(scores, abs=1e-4)
    assert [credit(RULES[rule](FOUR), place) for place in range(4)] == [float(place == winner) for place in range(4)]


def test_calibration_turns_the_answer() -> None:
    logs = [math.log(share) for share in (0.7, 0.3, 0.8, 0.2)]
    # The shares count, not the levels: all options are less probable by the same factor in each prompt.
    options = [OptionScores(str(n), [logs[n] - 5], content_free=[logs[n + 2] - 9]) for n in range(2)]
    assert [math.exp(score) for score in RULES["calibrated"](options)] == pytest.approx([0.368, 0.632], abs=5e-4)
    assert credit(RULES["sum"](options), 0) == 1
    assert credit(RULES["calibrated"](options), 1) == 1


def test_shares_are_averaged_over_prompts_without_content() -> None:
    shares = [(0.9, 0.1), (0.5, 0.5)]
    options = [
        OptionScores(str(n), [math.log(0.5)], content_free=[math.log(share[n]) for share in shares]) for n in range(2)
    ]
    assert [math.exp(score) for score in RULES["calibrated"](options)] == pytest.approx([0.3, 0.7])


def test_a_tie_counts_in_parts() -> None:
    assert [credit([1.0, 1.0, 0.0], place) for place in range(3)] == [0.5, 0.5, 0.0]


@pytest.fixture(scope="module")
def tokenizer(shared: Path) -> Tokenizer:
    return tokenizer_of(shared)


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Questions:
    data = write_sst2(tmp_path_factory.mktemp("data"))
    config = compose(["task=sst2", f"task.data_dir={data}"])
    return read_questions(locate(config.task, config.tasks["sst2"]))


TEMPLATE = Template(prompt="{first} Was", options={"0": "bad", "1": "good"}, separator=". ", neutral="Was")


def test_a_draw_depends_on_seed_and_question_alone(questions: Questions) -> None:
    drawn = Demonstrations(questions.training, "sst2", 1, balanced=False)
    whole = {question.id: drawn.of(question, 4) for question in questions.dev}
    again = Demonstrations(questions.training[::-1], "sst2", 1, balanced=False)  # another order of the file
    assert {question.id: again.of(question, 4) for question in questions.dev[::-2]} == {
        question.id: whole[question.id] for question in questions.dev[::-2]
    }
    other = Demonstrations(questions.training, "sst2", 2, balanced=False)
    assert sum(other.of(question, 4) == whole[question.id] for question in questions.dev) == 0
    assert len({tuple(shot.id for shot in shots) for shots in whole.values()}) == len(whole)
    assert all(drawn.of(question, 2) == whole[question.id][:2] for question in questions.dev)
    counts = [shot.id for shots in whole.values() for shot in shots]
    assert len(set(counts)) > 40  # of 64: no few rows are drawn again and again


def test_a_question_is_never_among_its_demonstrations(questions: Questions) -> None:
    drawn = Demonstrations(questions.training, "sst2", 0, balanced=False)
    for asked in questions.training[:5]:
        twins = [row for row in questions.training if row.fields == asked.fields]
        shots = drawn.of(Question("another id", asked.fields, asked.options, 0, ""), 1000)
        assert len(shots) == len(questions.training) - len(twins)
        assert all(shot.fields != asked.fields for shot in shots)


def test_balanced_demonstrations_take_turns(questions: Questions) -> None:
    drawn = Demonstrations(questions.training, "sst2", 0, balanced=True)
    pairs = [[shot.answer for shot in drawn.of(question, 6)] for question in questions.dev]
    assert all(sum(answers) == 3 and answers[0] != answers[1] for answers in pairs)
    assert {answers[0] for answers in pairs} == {0, 1}  # neither class leads always


def test_the_text_of_a_prompt(tokenizer: Tokenizer, questions: Questions) -> None:
    question, shot = questions.dev[0], questions.training[0]
    prompt = Prompts(TEMPLATE, tokenizer, 500).of(question, [shot])
    word = ("bad", "good")[shot.answer]
    text = f"{shot.fields['first']} Was {word}. {question.fields['first']} Was"
    assert list(prompt.context) == tokenizer.encode([text])[0]
    wholes = tokenizer.encode([f"{text} bad", f"{text} good"])
    assert [[*prompt.context, *option] for option in prompt.options] == wholes
    assert (prompt.shots, prompt.cut, prompt.moved) == ((shot,), 0, False)


def test_demonstrations_are_dropped_until_the_prompt_fits(tokenizer: Tokenizer, questions: Questions) -> None:
    shots = questions.training[:8]
    for question in questions.dev[:10]:
        whole = Prompts(TEMPLATE, tokenizer, 10_000).of(question, shots)
        assert whole.shots == tuple(shots)
        sizes = [len(Prompts(TEMPLATE, tokenizer, 10_000).of(question, shots[:n]).context) for n in range(9)]
        longest = max(map(len, whole.options))
        for kept in range(9):
            exact = Prompts(TEMPLATE, tokenizer, sizes[kept] + longest).of(question, shots)
            assert (len(exact.shots), exact.cut) == (kept, 0)
            if kept:
                short = Prompts(TEMPLATE, tokenizer, sizes[kept] + longest - 1).of(question, shots)
                assert (len(short.shots), short.cut) == (kept - 1, 0)
        alone = Prompts(TEMPLATE, tokenizer, 10_000).of(question, [])
        cut = Prompts(TEMPLATE, tokenizer, sizes[0] + longest - 2).of(question, shots)
        assert (cut.shots, cut.cut, cut.context, cut.options) == ((), 2, alone.context[2:], alone.options)


def test_neutral_prompts_and_those_without_content_fit_too(tokenizer: Tokenizer, questions: Questions) -> None:
    question, shots = questions.dev[0], questions.training[:4]
    room = 8
    prompts = Prompts(TEMPLATE, tokenizer, room)
    made = [*prompts.content_free(question, shots), prompts.neutral(question.options), prompts.of(question, shots)]
    assert all(len(prompt.context) + max(map(len, prompt.options)) <= room for prompt in made)
    loose = Prompts(TEMPLATE, tokenizer, 500)
    text = f"{shots[0].fields['first']} Was {('bad', 'good')[shots[0].answer]}. N/A Was"
    assert list(loose.content_free(question, shots[:1])[0].context) == tokenizer.encode([text])[0]
    assert list(loose.neutral(question.options).context) == tokenizer.encode(["Was"])[0]


def test_an_option_that_the_model_cannot_read_is_refused(tokenizer: Tokenizer, questions: Questions) -> None:
    with pytest.raises(DataError, match="Use shorter options"):
        Prompts(TEMPLATE, tokenizer, 1).of(questions.dev[0], [])


class Spanning:
    """A tokenizer of characters that joins ``a b`` across the space."""

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [[ord(c) for c in text.replace("a b", "X")] for text in texts]


def test_a_cut_inside_a_token_moves_back() -> None:
    prompt = divided(Spanning(), "x a", ["b", "c"], " ")  # type: ignore[arg-type]
    assert ["".join(map(chr, option)) for option in prompt.options] == ["X", "a c"]
    assert ("".join(map(chr, prompt.context)), prompt.moved) == ("x ", True)
    with pytest.raises(DataError, match="has no token of its own"):
        divided(Spanning(), "x", ["", "b"], "")  # type: ignore[arg-type]


def test_options_that_the_tokenizer_cannot_tell_apart_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="the same tokens as another one"):
        divided(tokenizer, "ba", ["ж", "щ"], " ")


def test_every_template_fits_its_task() -> None:
    shipped = Path(load_template.__code__.co_filename).parent / "templates"
    names = {file.stem for file in shipped.glob("*.yaml")}
    glue = {"sst2", "cola", "mrpc", "qqp", "mnli", "rte", "wnli", "qnli"}
    assert names == glue | {"race", "era", "word_order", "text_classification", "minimal_pairs"}
    for name in names:
        template = load_template(name, None)
        shown = template.asked({field: f"<{field}>" for field in template.fields})
        assert all(f"<{field}>" in shown for field in template.fields)
        if name in glue:
            fields = ("first", "text") if GLUE[name].second is None else ("first", "second", "text")
            require_fitting(template, fields, GLUE[name].labels or (), name)
            assert set(template.fields) == set(fields) - {"text"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("prompt: '{first} It was'\noptins: {a: b, c: d}", "there is no key optins. Did you mean options?"),
        ("separator: ' '", "prompt: Field required."),
        ("- a list", "keys with values are expected"),
        ("prompt: 'a\n b: [", "no YAML"),
        ("prompt: '{0} It was'", "prompt: {0} is no field"),
        ("prompt: '{first!r}'", "prompt: {first} is no field"),
        ("prompt: '{first'", "prompt: expected '}'"),
        ("prompt: '{first}'\noptions: {'0': bad}", "options: "),
        ("prompt: '{first}'\noptions: {'0': no, '1': yes}", "a word is expected. Put it in quotes"),
    ],
)
def test_a_wrong_template_is_refused_in_words(content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError) as refused:
        load_template("sst2", str(file))
    assert str(refused.value).startswith(f"kshot.template={file}: ")
    assert said in str(refused.value)


def test_a_template_that_does_not_fit_the_task_is_refused() -> None:
    fields, classes = ("first", "text"), ("0", "1")
    require_fitting(TEMPLATE, fields, classes, "sst2")
    for template, said in (
        (Template(prompt="{frist}"), "no field {frist}. Did you mean first?"),
        (Template(prompt="{first}", options={"0": "a", "2": "b"}), "the class '1' is missing"),
        (Template(prompt="{first}", options={"0": "a", "1": "b", "2": "c"}), "there is no class '2'"),
    ):
        with pytest.raises(ConfigError, match="mine: ") as refused:
            require_fitting(template, fields, classes, "mine")
        assert said in str(refused.value)
    with pytest.raises(ConfigError, match="each question has its own"):
        require_fitting(TEMPLATE, fields, (), "mine")


@pytest.mark.parametrize("task", ["stsb", "squad11"])
def test_tasks_without_options_are_refused(task: str, tmp_path: Path) -> None:
    if task == "stsb":
        for side in ("train", "dev"):
            write_tsv(tmp_path / "STS-B" / f"{side}.tsv", ["sentence1", "sentence2", "score"], [["a", "b", 1.5]])
    else:
        write_squad(tmp_path)
    config = compose([f"task={task}", f"task.data_dir={tmp_path}"])
    with pytest.raises(ConfigError, match="kshot takes classes and choices"):
        read_questions(locate(config.task, config.tasks[task]))
