"""The scorecard: judges each claim of ``claims.yaml`` from the runs.

A claim states that a sum over arms lies above a bound, or between two bounds. It is reproduced where a t test
over seeds shows that, contradicted where it shows the opposite, else inconclusive, at 95% after Holm's
correction over all claims that are judged.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
import pydantic
import yaml
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked

from albert_ablate.axes import ATTENTION, BLOCK, METHOD, Attention, BlockType, MethodName
from albert_ablate.config.schema import CONF
from albert_ablate.errors import ConfigError
from albert_ablate.sweeping.definition import sweep_names

from ..read import paper
from ..read.cells import NO_RUN, coverage, select
from ..read.seeds import doubt, lost_seeds
from ..read.tunings import has_facts
from . import prompted_scores
from .effects import contrast
from .metrics import (
    LATENCY,
    METRICS,
    ONNX_LATENCY,
    QUEST_TASKS,
    SETTINGS,
    is_of_fine_tuning,
    measured_apart,
    roughness,
    tasks_of,
    unfit,
    values,
)
from .statistics import ALPHA, Estimate, holm, p_above, p_below, seeds_for_band, seeds_needed
from .tables import REFERENCES, arms_of
from .terms import settings_of

_FILE = Path(__file__).parent.parent / "claims.yaml"
#: ELECTRA's claims, those of DistilBERT and TinyBERT, and of causal LM: judged where a run has one of their methods.
ELECTRA, DISTILLATION = _FILE.with_name("electra_claims.yaml"), _FILE.with_name("distillation_claims.yaml")
#: Claims on Google QUEST: judged where a run was fine-tuned on it.
QUEST = _FILE.with_name("quest_claims.yaml")
#: K-BERT's: judged where a fine-tuning read facts.
FACTS = _FILE.with_name("knowledge_claims.yaml")
CAUSAL = _FILE.with_name("causal_claims.yaml")
#: BigBird's: judged where a run attends in blocks.
BIGBIRD = _FILE.with_name("bigbird_claims.yaml")
#: MobileBERT's: judged where a run has its layers.
MOBILEBERT = _FILE.with_name("mobilebert_claims.yaml")


def _methods(runs: pd.DataFrame) -> list[MethodName]:
    return [MethodName(name) for name in set(runs[METHOD.name].dropna())]


#: File of claims besides the first paper's -> whose they are, and whether any of the runs is what they speak of.
_FURTHER: dict[Path, tuple[str, Callable[[pd.DataFrame], bool]]] = {
    ELECTRA: ("ELECTRA's", lambda runs: any(m.corrupts for m in _methods(runs))),
    DISTILLATION: (
        "DistilBERT's and TinyBERT's", lambda runs: any(m.distils and not m.transfers for m in _methods(runs))
    ),
    QUEST: ("QUEST's", lambda runs: bool(set(QUEST_TASKS) & set(tasks_of(runs)))),
    FACTS: ("K-BERT's", lambda runs: any(has_facts(entry) for tasks in runs["tasks"] for entry in tasks)),
    CAUSAL: ("causal LM's", lambda runs: any(m.predicts_next for m in _methods(runs))),
    BIGBIRD: ("BigBird's", lambda runs: Attention.BIGBIRD in set(runs.get(ATTENTION.name, ()))),
    MOBILEBERT: (
        "MobileBERT's",
        lambda runs: any(BlockType(t).has_bottlenecks for t in runs.get(BLOCK.name, ()) if isinstance(t, str)),
    ),
}  # fmt: skip
VERDICTS = ("reproduced", "contradicted", "inconclusive", "not tested")
_ROW = re.compile(r"(\w+)\.(\d+)")


@checked(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Claim:
    """One entry of a claims file."""

    id: str
    claim: str
    arms: dict[str, str | dict[str, Any]]
    effect: dict[str, float]
    scores: list[str]
    source: str = ""
    constant: float = 0.0
    above: float | None = None
    between: tuple[float, float] | None = None
    paper_score: str | None = None  # the paper's column, where it differs from the score
    paper_curves: dict[str, str] = field(default_factory=dict)  # arm -> curve of Figure 1

    def __post_init__(self) -> None:
        if (self.above is None) == (self.between is None):
            raise ValueError("give either above or between")
        if self.between is not None and self.between[0] >= self.between[1]:
            raise ValueError("between: the first bound must lie below the second")
        if set(self.effect) != set(self.arms):
            raise ValueError(f"effect names {', '.join(self.effect)}; arms are {', '.join(self.arms)}")
        if not (self.id.strip() and self.claim.strip()):
            raise ValueError("id and claim must not be empty")
        idle = [arm for arm, factor in self.effect.items() if factor == 0]
        if idle or not self.arms:
            raise ValueError(f"effect: the factor of {idle[0]} is 0" if idle else "arms: give at least one")
        for name, scores in (("scores", self.scores), ("paper_score", [self.paper_score] if self.paper_score else [])):
            unknown = [score for score in scores if not _is_score(score)]
            if unknown or (name == "scores" and not scores):
                raise ValueError(
                    f"{name}: {_unknown_score(unknown)}; known scores are {', '.join(METRICS)}, "
                    f"{prompted_scores.PAIRS}, task:NAME and {', '.join(f'{k}:NAME' for k in prompted_scores.kinds())}"
                )
        curves = set(self.paper_curves.values()) - set(paper.figure("figure1")["L2"]["series"])
        if curves or (self.paper_curves and set(self.paper_curves) != set(self.arms)):
            raise ValueError("paper_curves gives each arm a curve of the paper's Figure 1")

    def terms(self) -> dict[str, dict[str, Any]]:
        """Arm -> terms of its cell. Raises ConfigError for an unknown row, invalid terms, or two arms with one cell."""
        problems, cells = [], {}
        for name, cell in self.arms.items():
            try:
                cells[name] = _terms(cell)
            except ConfigError as error:
                problems += [f"claim {self.id}: arm {name}: {problem}" for problem in error.problems]
        if problems:
            raise ConfigError(problems)
        for name, second in combinations(cells, 2):
            if cells[name] == cells[second]:
                raise ConfigError(f"claim {self.id}: arms {name} and {second} are the same cell.")
        return cells


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim, with the numbers behind it."""

    claim: Claim
    verdict: str
    reason: str = ""  # why it is not tested, or is inconclusive
    score: str | None = None
    effect: Estimate | None = None
    paper: float | None = None  # the same sum from the paper's numbers
    paper_score: str | None = None
    judged: bool = False  # whether it is tested, and counts for Holm's correction
    p: float = 1.0  # twice the smaller one-sided p value
    adjusted: float = 1.0
    seeds_needed: int | None = None
    arms: dict[str, tuple[str, ...]] = field(default_factory=dict)  # arm -> runs
    planned: int = 0  # seeds, with and without numbers
    lost: str = ""  # the seeds without numbers and their states, arm by arm
    left_out: int = 0  # runs of the arms in other set-ups

    @property
    def stand_in(self) -> bool:
        """Whether the judged score differs from the paper's."""
        return None not in (self.score, self.paper_score) and self.paper_score not in (
            self.score,
            self.claim.paper_score,
        )


def load_all(files: Sequence[Path]) -> list[Claim]:
    """The papers' claims and those of ``files``. Raises ConfigError for a faulty file or an id used twice."""
    claims: list[Claim] = []
    known: dict[str, str] = {}
    for file in (None, *_FURTHER, *files):
        loaded = load_claims(file)
        for claim in loaded:
            if claim.id in known:
                raise ConfigError(f"{file}: claim {claim.id}: the id is taken, by a claim of {known[claim.id]}.")
        claims += loaded
        known |= dict.fromkeys((claim.id for claim in loaded), _owner(file))
    return claims


def _owner(file: Path | None) -> str:
    return "the paper's" if file is None else _FURTHER[file][0] if file in _FURTHER else str(file)


def in_question(runs: pd.DataFrame, claims: Sequence[Claim]) -> list[Claim]:
    """``claims``, without those of papers whose methods, tasks or facts no run has."""
    absent = {name for file in _FURTHER if not is_there(runs, file) for name in ids_of(file)}
    return [claim for claim in claims if claim.id not in absent]


def is_there(runs: pd.DataFrame, file: Path) -> bool:
    """Whether any of the runs is what the claims of a shipped file besides ALBERT's speak of."""
    return _FURTHER[file][1](runs)


@cache
def ids_of(file: Path | None) -> frozenset[str]:
    """The ids of the claims in one of the shipped files; of ALBERT's for None."""
    return frozenset(claim.id for claim in load_claims(file))


def load_claims(file: Path | str | None = None) -> list[Claim]:
    """The paper's claims, or those of ``file``. Raises ConfigError naming the entry and what is wrong."""
    path = _FILE if file is None else Path(file)
    try:
        text = path.read_text(encoding="utf-8")
        twice = _twice(yaml.compose(text, yaml.SafeLoader), set())
        claims = pydantic.TypeAdapter(list[Claim]).validate_python(entries := yaml.safe_load(text))
    except FileNotFoundError:
        raise ConfigError(f"claims={path}: no such file.") from None
    except OSError as error:
        raise ConfigError(f"claims={path}: cannot be read ({error.strerror}).") from None
    except (UnicodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"claims={path}: not YAML: {' '.join(str(error).split())}") from None
    except pydantic.ValidationError as error:
        raise ConfigError(list(dict.fromkeys(_explain(path, entries, problem) for problem in error.errors()))) from None
    problems = [f"{path}: line {line}: {key} is given twice." for key, line in twice]
    problems += [] if claims else [f"{path}: it holds no claims."]
    ids = [claim.id for claim in claims]
    problems += [f"{path}: claim {name}: the id is given twice." for name in dict.fromkeys(ids) if ids.count(name) > 1]
    for claim in claims:
        try:
            claim.terms()
        except ConfigError as error:
            problems += [f"{path}: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(problems)
    return claims


def _twice(node: yaml.Node | None, seen: set[int]) -> list[tuple[str, int]]:
    """(key, line) of every repeated key of a mapping: YAML itself would silently use the last value."""
    repeated: list[tuple[str, int]] = []
    if node is None or id(node) in seen:
        return repeated
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        lines = [key.start_mark.line + 1 for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        repeated += [(key, lines[index]) for index, key in enumerate(keys) if key in keys[:index]]
        inner = [value for _, value in node.value]
    else:
        inner = node.value if isinstance(node, yaml.SequenceNode) else []
    return repeated + [repeat for child in inner for repeat in _twice(child, seen)]


def _explain(path: Path, entries: Any, problem: Any) -> str:
    location = problem["loc"]
    entry = (
        entries[location[0]]
        if isinstance(entries, list) and location and isinstance(entries[location[0]], dict)
        else {}
    )
    name = ".".join(map(str, location[1:]))
    what = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "unexpected_keyword_argument":
        near = difflib.get_close_matches(name, _FIELDS, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]}? " if near else ""
        what = f"there is no such field. {hint}A claim has: {', '.join(_FIELDS)}."
    elif problem["type"] in ("missing", "missing_argument"):
        what = "missing."
    elif location[1:2] == ("arms",) and len(location) > 2:
        name, what = f"arms.{location[2]}", "give a row such as table4.6, or terms such as {share: all}."
    if not location:
        return f"{path}: a list of claims is expected, each with {', '.join(_FIELDS)}."
    return (
        f"{path}: claim {entry.get('id', location[0] + 1)}: {name}: {what}"
        if name
        else (f"{path}: claim {entry.get('id', location[0] + 1)}: {what}")
    )


_FIELDS = tuple(Claim.__dataclass_fields__)


def _terms(cell: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(cell, dict):
        return settings_of(cell)
    match = _ROW.fullmatch(cell)
    arms = arms_of(match[1]) if match and match[1] in sweep_names() else {}
    if cell not in arms:
        near = difflib.get_close_matches(cell, [row for name in REFERENCES for row in arms_of(name)], n=1, cutoff=0.7)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"there is no row {cell}.{hint} Give a row such as table4.6, or terms such as {{share: all}}."
        )
    return arms[cell]


@cache
def _tasks() -> tuple[str, ...]:
    """The names of all tasks in ``conf/task``."""
    return tuple(sorted(file.stem for file in (CONF / "task").glob("*.yaml")))


def _is_score(score: str) -> bool:
    if prompted_scores.is_prompted(score):
        return score == prompted_scores.PAIRS or prompted_scores.task_of(score) in _tasks()
    return score in METRICS or (score.startswith("task:") and score.removeprefix("task:") in _tasks())


def _unknown_score(unknown: Sequence[str]) -> str:
    if not unknown:
        return "none"
    prompts = [prompted_scores.PAIRS, *(f"{kind}:{name}" for kind in prompted_scores.kinds() for name in _tasks())]
    known = [*METRICS, *(f"task:{name}" for name in _tasks()), *prompts]
    near = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0.5)
    return ", ".join(unknown) + (f" (did you mean {near[0]}?)" if near else "")


def judge(runs: pd.DataFrame, claims: Sequence[Claim], survivors: bool = False) -> list[Verdict]:
    """A verdict on every claim, in the order given.

    A claim about an arm with a diverged seed is inconclusive: the remaining seeds are selected by their result.
    ``survivors``: judge it by the remaining seeds.
    """
    measured = [_measure(runs, claim, survivors) for claim in claims]
    indices = [index for index, verdict in enumerate(measured) if verdict.judged]
    adjusted = holm([measured[index].p for index in indices])
    for index, p in zip(indices, adjusted, strict=True):
        measured[index] = _decide(replace(measured[index], adjusted=p), len(indices))
    return measured


def _measure(runs: pd.DataFrame, claim: Claim, survivors: bool) -> Verdict:
    """The claim's effect and p value before correction, or why it is not judged."""
    selection = select(runs, claim.terms())
    planned = max((len(seeds.planned) for seeds in selection.seeds.values()), default=0)
    empty = Verdict(claim, "not tested", left_out=selection.left_out, planned=planned, lost=lost_seeds(selection.seeds))
    empty = replace(empty, **_paper(claim, claim.scores[0]))
    missing = [f"{name}: {_no_run(runs, claim, name, reason)}" for name, reason in selection.waiting.items()]
    if missing:
        return replace(empty, reason="; ".join(missing))
    usable = [score for score in claim.scores if all(len(values(frame, score)) for frame in selection.runs.values())]
    if not usable:
        return replace(empty, reason=f"no {' or '.join(claim.scores)} of every arm: {_missing(claim)}")
    score = usable[0]
    names = {name: tuple(frame["run"]) for name, frame in selection.runs.items()}
    base = replace(empty, score=score, arms=names, **_paper(claim, score))
    doubts = [f"{name}: {mark}" for name, frame in selection.runs.items() if (mark := unfit(frame, score))]
    if score in SETTINGS and not doubts and (apart := measured_apart(*selection.runs.values(), key=score)):
        doubts = [apart]
    if doubts:
        return replace(base, reason="; ".join(doubts))
    effect = contrast(selection.runs, claim.effect, score, claim.constant)
    if effect is None:
        return replace(base, reason="no seed that every arm has")
    if effect.n < 2:
        return replace(base, verdict="inconclusive", effect=effect, reason="one seed: at least two are needed")
    if (why := doubt(selection.seeds)) and not survivors:
        return replace(base, verdict="inconclusive", effect=effect, reason=why)
    inside, outside = _sides(claim, effect)
    return replace(base, verdict="inconclusive", effect=effect, judged=True, p=min(1.0, 2 * min(inside, outside)))


def _no_run(runs: pd.DataFrame, claim: Claim, arm: str, reason: str) -> str:
    """``reason``; for a cell given by terms, also how many runs have each of its settings."""
    given = coverage(runs, claim.terms()[arm]) if reason == NO_RUN and isinstance(claim.arms[arm], dict) else []
    return f"{reason} ({'; '.join(given[:4])})" if given else reason


def _missing(claim: Claim) -> str:
    if all(prompted_scores.is_prompted(score) for score in claim.scores):
        return "ask the arms (kshot)"
    if set(claim.scores) <= {LATENCY, ONNX_LATENCY}:
        return "time the arms (python -m benchmarks.latency RUN RUN --record)"
    return "fine-tune the arms" if any(map(is_of_fine_tuning, claim.scores)) else "not measured"


def _sides(claim: Claim, effect: Estimate) -> tuple[float, float]:
    """One-sided p values of the hypotheses that the claim is false, and that it is true."""
    if claim.between is not None:
        low, high = claim.between
        return max(p_above(effect, low), p_below(effect, high)), min(p_below(effect, low), p_above(effect, high))
    bound = claim.above or 0.0
    return p_above(effect, bound), p_below(effect, bound)


def _decide(verdict: Verdict, judged: int) -> Verdict:
    assert verdict.effect is not None
    inside, outside = _sides(verdict.claim, verdict.effect)
    if verdict.adjusted < ALPHA:
        return replace(verdict, verdict="reproduced" if inside < outside else "contradicted")
    if verdict.claim.between is not None:
        needed = seeds_for_band(verdict.effect.mean, verdict.effect.spread, verdict.claim.between, ALPHA / judged)
    else:
        distance = abs(verdict.effect.mean - (verdict.claim.above or 0.0))
        needed = seeds_needed(distance, verdict.effect.spread, ALPHA / judged)
    needed = None if needed is None else max(needed, verdict.effect.n + 1)
    reason = "decided alone, not after correcting for all claims" if verdict.p < ALPHA else _undecided(verdict)
    more = f"about {needed} seeds would settle this effect" if needed else "more than 1,000 seeds at this effect"
    return replace(verdict, reason=f"{reason}; {more}", seeds_needed=needed)


def _undecided(verdict: Verdict) -> str:
    """``within noise``, or ``the interval contains the bound −0.5`` where it excludes zero."""
    effect, claim = verdict.effect, verdict.claim
    bounds = claim.between or (claim.above or 0.0,)
    contained = [f"{bound:g}" for bound in bounds if effect is not None and effect.low <= bound <= effect.high]
    if effect is None or not effect.excludes_zero or not contained:
        return "within noise"
    return f"the interval contains the bound {' and the bound '.join(contained)}".replace("-", "−")


def _paper(claim: Claim, score: str) -> dict[str, Any]:
    """The claim's sum from the paper's numbers: in ``score``, else in the claim's first score; None if not printed."""
    for name in dict.fromkeys((claim.paper_score or score, claim.scores[0])):
        if claim.paper_curves:
            panel = paper.figure("figure1")["L2" if name.startswith("L2") else "cosine_degrees"]["series"]
            numbers = {arm: roughness(panel[curve][1:]) for arm, curve in claim.paper_curves.items()}
        else:
            numbers = {arm: _printed(cell, name) for arm, cell in claim.arms.items()}
        known = {arm: number for arm, number in numbers.items() if number is not None}
        if len(known) == len(claim.arms):
            return {
                "paper": claim.constant + sum(claim.effect[arm] * x for arm, x in known.items()),
                "paper_score": name,
            }
    return {"paper": None, "paper_score": None}


def _printed(cell: str | dict[str, Any], score: str) -> float | None:
    if not isinstance(cell, str):
        return None
    table, _, number = cell.partition(".")
    if table not in {"table1", *REFERENCES}:  # a sweep of which no table of a paper is kept
        return None
    return paper.table(table)["rows"][int(number) - 1].get(score)


@cache
def _ids() -> frozenset[str]:
    """The ids of the papers' claims."""
    return frozenset().union(*map(ids_of, (None, *_FURTHER)))


def whose(verdicts: Sequence[Verdict]) -> str:
    """``the paper`` whose claims these are; ``both papers`` with ELECTRA's, ``the papers`` with those of others."""
    named = {v.claim.id for v in verdicts}
    if any(named & ids_of(file) for file in _FURTHER if file != ELECTRA):
        return "the papers"
    return "both papers" if named & ids_of(ELECTRA) else "the paper"


def divided(verdicts: Sequence[Verdict]) -> tuple[list[Verdict], list[Verdict]]:
    """The verdicts on claims of the user, and those on claims of the papers."""
    return [v for v in verdicts if v.claim.id not in _ids()], [v for v in verdicts if v.claim.id in _ids()]


def counted(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Verdict -> number of claims with it."""
    return {name: sum(verdict.verdict == name for verdict in verdicts) for name in VERDICTS}


def scorecard(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """A row for each claim: verdict, score, effect with interval, p, the paper's effect, seeds, reason."""
    return pd.DataFrame(
        {
            "id": v.claim.id, "claim": v.claim.claim, "source": v.claim.source, "verdict": v.verdict,
            "score": v.score, "holds_if": bound_text(v.claim), "n": 0 if v.effect is None else v.effect.n,
            "planned": v.planned, "without_numbers": v.lost,
            "effect": None if v.effect is None else v.effect.mean, "low": None if v.effect is None else v.effect.low,
            "high": None if v.effect is None else v.effect.high, "p": v.p if v.judged else None,
            "p_holm": v.adjusted if v.judged else None, "paper_score": v.paper_score, "paper_effect": v.paper,
            "seeds_needed": v.seeds_needed, "reason": v.reason,
        }
        for v in verdicts
    )  # fmt: skip


def bound_text(claim: Claim) -> str:
    """The bound of a claim as text: ``> 0`` or ``−3 to 3``."""
    if claim.between is not None:
        return f"{claim.between[0]:g} to {claim.between[1]:g}".replace("-", "−")
    return f"> {claim.above:g}".replace("-", "−")
