"""The first sentence of a report: what the runs answer, or why they answer nothing."""

from collections.abc import Sequence

import pandas as pd

from albert_ablate.config.schema import CONF

from ..judge.claims import Verdict, counted, whose
from ..judge.effects import SweepTable
from ..read.records import parse_yaml
from . import own

#: The smallest scale whose arms leave the plateau, and where it ends on the embedded corpus (docs/scales.md).
_LEAVING, PLATEAU_TOKENS = "cpu", 6e6


def answer(
    done: pd.DataFrame, sweeps: Sequence[SweepTable], claimed: Sequence[Verdict], papers: Sequence[Verdict]
) -> str | None:
    """One sentence: about the plateau if no arm left it, else the user's claims, sweep, or the paper's claims.

    ``done``: finished runs of one set-up; ``claimed`` and ``papers``: verdicts on the user's claims and the paper's.
    None where there is nothing to say.
    """
    if on_plateau(done):
        return _plateau(done)
    if any(verdict.verdict != "not tested" for verdict in claimed):
        return _of_claims(claimed)
    if sweeps and sweeps[0].of_user and sweeps[0].reference:
        title = sweeps[0].title.rstrip(".")
        return f"{title}{'' if title.endswith('?') else ':'} {own.answer(sweeps[0], most=1)}"
    tested = [verdict for verdict in papers if verdict.verdict != "not tested"]
    if tested:
        return f"Of {len(papers)} claims of {whose(papers)} these runs can test {len(tested)}: {_listed(tested)}."
    return own.answer(sweeps[0], most=1) if sweeps and sweeps[0].reference else None


def on_plateau(done: pd.DataFrame) -> bool:
    """Whether no run is better than the unigram baseline of masked LM; False where a run was not compared with it."""
    left = [flag for flag in done["mlm_left_baseline"] if isinstance(flag, bool)]
    return bool(left) and len(left) == len(done) and not any(left)


def _plateau(done: pd.DataFrame) -> str:
    arms = done["arm"].nunique()
    which = "The only arm is" if arms == 1 else f"All {arms} arms are"
    trained = f"{done['steps'].mean():,.0f} steps ({done['tokens'].mean() / 1e6:.2g} M tokens)"
    steps, tokens = _budget(_LEAVING)
    return (
        f"{which} still below the unigram baseline of masked LM after {trained}, so nothing can be compared. Train "
        f"longer: on the embedded corpus the plateau ends at about {PLATEAU_TOKENS / 1e6:.0f} M tokens, and "
        f"scale={_LEAVING} ({steps:,} steps, {tokens / 1e6:.0f} M tokens) is the smallest scale that leaves it."
    )


def _budget(scale: str) -> tuple[int, int]:
    """Steps of a scale, and their tokens with padding."""
    settings = parse_yaml((CONF / "scale" / f"{scale}.yaml").read_text(encoding="utf-8"))
    steps = int(settings["budget"]["steps"])
    return steps, steps * int(settings["batch"]["size"]) * int(settings["pairs"]["max_length"])


def _of_claims(claimed: Sequence[Verdict]) -> str:
    if len(claimed) == 1:
        only = claimed[0]
        return (
            f"Your claim “{only.claim.claim.rstrip('.')}” is {only.verdict}{f': {only.reason}' if only.reason else ''}."
        )
    return f"Of your {len(claimed)} claims: {_listed(claimed)}."


def _listed(verdicts: Sequence[Verdict]) -> str:
    """``2 reproduced, 1 contradicted``."""
    return ", ".join(f"{count} {name}" for name, count in counted(verdicts).items() if count)
