"""Checks the scorecard against the claims files and the run folders."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from . import printed, rules, scores
from .arms import UnknownTermError, cells, select
from .checks import Check, compare, unknown
from .files import at
from .rules import ALPHA, Estimate
from .runs import Run
from .student import holm

_SECTION = "scorecard"
_TEXTS = ("id", "claim", "source", "reason")


def check(
    rows: Sequence[dict[str, str]],
    claims: Sequence[dict[str, Any]],
    runs: Sequence[Run],
    survivors: bool = False,
) -> tuple[list[Check], list[dict[str, Any]]]:
    """Checks of all of ``scorecard.csv``, and the derived rows. A claim without a row is a disagreement."""
    checks = []
    reported = {row["id"]: row for row in rows}
    if not any(isinstance(at(run.config, "data.planted"), dict) for run in runs):
        claims = [claim for claim in claims if not _planted(claim)]
    named = [claim for claim in claims if claim["id"] in reported]
    try:
        derived = judge(named, runs, survivors)
    except UnknownTermError as error:
        return [unknown(_SECTION, row["id"], row["verdict"], str(error)) for row in rows], []
    for claim in claims:
        name = claim["id"]
        if name in reported:
            checks += _row(reported[name], derived[name])
        elif not _of_absent_methods(claim, runs):
            checks.append(compare(_SECTION, name, None, "a row", "the claims file"))
    known = {claim["id"] for claim in claims}
    reason = "no claims file names it; give the one of the report with --claims"
    checks += [unknown(_SECTION, row["id"], row["verdict"], reason) for row in rows if row["id"] not in known]
    return checks, [derived[row["id"]] for row in rows if row["id"] in known]


def _row(row: dict[str, str], derived: dict[str, Any]) -> list[Check]:
    source = derived["files"]
    shown = row | {"without_numbers": str(bool(row.get("without_numbers")))}  # only whether a seed is named
    checks = [compare(_SECTION, f"{row['id']} · {k}", shown[k], v, source) for k, v in derived.items() if k in row]
    match = re.search(r"about ([\d,]+) seeds", row.get("reason", ""))
    number = match[1].replace(",", "") if match else None
    checks.append(compare(_SECTION, f"{row['id']} · seeds in the reason", number, derived["seeds_needed"], source))
    return checks + [
        unknown(_SECTION, f"{row['id']} · {k}", v, "a column that this check does not know")
        for k, v in row.items()
        if k not in derived and k not in _TEXTS
    ]


def judge(claims: Sequence[dict[str, Any]], runs: Sequence[Run], survivors: bool) -> dict[str, dict[str, Any]]:
    """Claim -> its derived row of the scorecard, by column."""
    rows_by_claim = {claim["id"]: _measured(claim, runs, survivors) for claim in claims}
    by_id = {claim["id"]: claim for claim in claims}
    for text in ("natural", "planted"):  # each is a family for Holm's correction
        judged = [name for name, row in rows_by_claim.items() if row["judged"] and row["text"] == text]
        for name, p in zip(judged, holm([rows_by_claim[name]["p"] for name in judged]), strict=True):
            rows_by_claim[name] |= _decided(by_id[name], rows_by_claim[name]["estimate"], p, len(judged))
    for row in rows_by_claim.values():
        del row["estimate"], row["judged"]
    return rows_by_claim


def _measured(claim: dict[str, Any], runs: Sequence[Run], survivors: bool) -> dict[str, Any]:
    names = list(claim["arms"])
    arms = select(runs, [_terms(claim["arms"][name]) for name in names])
    chosen = {name: arm.runs for name, arm in zip(names, arms, strict=True)}
    doubts = [rules.doubt(arm.lost, len(arm.planned)) for arm in arms]
    empty: dict[str, Any] = {
        "verdict": "not tested", "score": None, "holds_if": _bound(claim), "n": 0, "effect": None, "low": None,
        "high": None, "p": None, "p_holm": None, "seeds_needed": None, "estimate": None, "files": "run folders",
        "judged": False, "planned": max(len(arm.planned) for arm in arms),
        "without_numbers": any(arm.lost for arm in arms), "text": "planted" if _planted(claim) else "natural",
        **_paper(claim, claim["scores"][0]),
    }  # fmt: skip
    if not all(chosen.values()):
        return empty
    score = next((s for s in claim["scores"] if all(scores.values(arm_runs, s) for arm_runs in chosen.values())), None)
    if score is None:
        return empty
    files = "results.json of " + ", ".join(arm_runs[0].name for arm_runs in chosen.values())
    empty |= {"score": score, "files": files, **_paper(claim, score)}
    if any(scores.unfit(arm_runs, score) for arm_runs in chosen.values()):
        return empty
    if score in ("inference", *scores.LATENCIES) and scores.unfit(
        [run for arm_runs in chosen.values() for run in arm_runs], score
    ):
        return empty
    effect = _effect(claim, score, chosen)
    if effect is None:
        return empty
    judged = effect.n > 1 and (survivors or not any(doubts))
    return empty | {
        "verdict": "inconclusive", "n": effect.n, "effect": effect.mean, "low": effect.low, "high": effect.high,
        "p": min(1.0, 2 * min(_sides(claim, effect))) if judged else None, "judged": judged, "estimate": effect,
    }  # fmt: skip


def _effect(claim: dict[str, Any], score: str, chosen: Mapping[str, Sequence[Run]]) -> Estimate | None:
    """The claim's sum over the seeds that every arm has."""
    constant, factors = claim.get("constant", 0.0), claim["effect"]
    values = {name: scores.values(arm_runs, score) for name, arm_runs in chosen.items()}
    seeds = set.intersection(*(set(by_seed) for by_seed in values.values()))
    sums = [constant + sum(factors[name] * values[name][seed] for name in factors) for seed in sorted(seeds)]
    low, high = scores.bounds(score, *chosen.values())
    ends = [sorted((factor * low, factor * high)) for factor in factors.values()]
    within = (constant + sum(end[0] for end in ends), constant + sum(end[1] for end in ends))
    floors = {name: scores.floor(arm_runs, score) for name, arm_runs in chosen.items()}
    return rules.estimate(sums, within, rules.resolution_of_sum(factors, floors), score == "params")


def _sides(claim: dict[str, Any], effect: Estimate) -> tuple[float, float]:
    """One-sided p values of the hypotheses that the claim is false, and that it is true."""
    if claim.get("between") is not None:
        low, high = claim["between"]
        inside = max(rules.p_above(effect, low), rules.p_below(effect, high))
        return inside, min(rules.p_below(effect, low), rules.p_above(effect, high))
    return rules.p_above(effect, claim["above"]), rules.p_below(effect, claim["above"])


def _decided(claim: dict[str, Any], effect: Estimate, adjusted: float, judged: int) -> dict[str, Any]:
    inside, outside = _sides(claim, effect)
    if adjusted < ALPHA:
        return {"p_holm": adjusted, "verdict": "reproduced" if inside < outside else "contradicted"}
    if claim.get("between") is not None:
        low, high = claim["between"]
        needed = rules.seeds_for_band(effect.mean, effect.spread, low, high, ALPHA / judged)
    else:
        needed = rules.seeds_needed(effect.mean - claim["above"], effect.spread, ALPHA / judged)
    return {"p_holm": adjusted, "seeds_needed": None if needed is None else max(needed, effect.n + 1)}


def _paper(claim: dict[str, Any], score: str) -> dict[str, Any]:
    """The claim's sum from the paper's numbers, and the score it is in; None where the paper does not print them."""
    for name in (claim.get("paper_score") or score, claim["scores"][0]):
        numbers = {arm: _printed(claim, arm, name) for arm in claim["arms"]}
        if None not in numbers.values():
            parts = [claim["effect"][arm] * number for arm, number in numbers.items() if number is not None]
            return {"paper_score": name, "paper_effect": claim.get("constant", 0.0) + sum(parts)}
    return {"paper_score": None, "paper_effect": None}


def _printed(claim: dict[str, Any], arm: str, score: str) -> float | None:
    cell, curves = claim["arms"][arm], claim.get("paper_curves")
    if curves:
        return scores.roughness(printed.curve(curves[arm], not score.startswith("L2")))
    if not isinstance(cell, str):
        return None
    table, _, number = cell.partition(".")
    return printed.cell(table, int(number), score)


def _terms(cell: Any) -> dict[str, Any]:
    if isinstance(cell, dict):
        return cell
    table, _, number = cell.partition(".")
    return cells(table)[int(number) - 1]


def _planted(claim: dict[str, Any]) -> bool:
    """Whether an arm is on planted text, according to its terms."""
    return any(term.startswith("data.planted.") for cell in claim["arms"].values() for term in _terms(cell))


def _of_absent_methods(claim: dict[str, Any], runs: Sequence[Run]) -> bool:
    """Whether a claim is about a paper's methods, a task or facts beside texts, and no run has any of these."""
    terms = [_terms(cell) for cell in claim["arms"].values()]
    if any(name.startswith("knowledge") for of_arm in terms for name in of_arm):
        return not any(at(entry, "set_up.all_tasks.knowledge") for run in runs for entry in run.tasks)
    if all(score.startswith("QUEST") for score in claim["scores"]):
        return not {name for name in scores.tasks(runs) if name.startswith("quest")}
    if any(of_arm.get("attention") == "bigbird" for of_arm in terms):
        return not any(at(run.config, "attention.name") == "bigbird" for run in runs)
    if all(of_arm.get("block") == "mobilebert" for of_arm in terms):
        return not any(at(run.config, "block.type") == "mobilebert" for run in runs)
    families = [{"distilbert", "tinybert"}, {"causal"}, {"mobilebert"}]  # every other method but masked LM is ELECTRA's
    named = {str(of_arm.get("method", of_arm.get("method.name", "mlm"))) for of_arm in terms} - {"mlm"}
    present = {at(run.config, "method.name") or "mlm" for run in runs} - {"mlm"}
    own = next((family for family in families if named & family), None)
    return bool(named) and not (present - set().union(*families) if own is None else present & own)


def _bound(claim: dict[str, Any]) -> str:
    if claim.get("between") is not None:
        return "{:g} to {:g}".format(*claim["between"]).replace("-", "−")
    return f"> {claim['above']:g}".replace("-", "−")
