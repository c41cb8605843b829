"""What a report says in sentences: the answer, the summary, cautions, and what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from albert_ablate.axes import METHOD, MethodName
from albert_ablate.command_line import command_name
from albert_ablate.console import duration

from ..draw.style import Drawing
from ..judge.claims import BIGBIRD, DISTILLATION, MOBILEBERT, Verdict, counted, divided, is_there, whose
from ..judge.controls import Controls
from ..judge.controls import summary as controls_summary
from ..judge.effects import SweepTable
from ..judge.tables import REFERENCES, Table
from ..read import paper
from ..read.cautions import judged_in_one_setup, of_runs
from ..read.cells import main_setup
from ..read.copies import short
from .answer import answer as answer_of
from .answer import on_plateau

#: Owners of tables that are one line while they have no runs -> the sweep that fills them, and their families.
_OTHERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ELECTRA's": ("electra", ("electra",)),
    "DistilBERT's and TinyBERT's": ("distillation", ("distilbert", "tinybert")),
    "MobileBERT's": ("mobilebert_table_transfer", ("mobilebert",)),
    "BigBird's": ("bigbird_table1", ("bigbird",)),
}
#: Family of tables that are shown without runs only where a run is what their paper's claims speak of -> their file.
OF_FAMILY = {
    "distilbert": DISTILLATION, "tinybert": DISTILLATION, "mobilebert": MOBILEBERT, "bigbird": BIGBIRD,
}  # fmt: skip
#: Families whose tables are missing only where they would be shown without runs.
_UNNAMED = ("mobilebert", "bigbird")


@dataclass(frozen=True)
class Report:
    """The content of a report."""

    title: str
    runs: pd.DataFrame
    tables: tuple[Table, ...]
    verdicts: tuple[Verdict, ...]
    drawings: tuple[Drawing, ...]
    undrawn: dict[str, str] = field(default_factory=dict)  # figure -> why it was not drawn
    controls: Controls = field(default_factory=Controls)  # of runs on planted text
    sweeps: tuple[SweepTable, ...] = ()  # the user's, the latest first
    forests: dict[str, Drawing] = field(default_factory=dict)  # table of a sweep -> its effects

    @property
    def filled(self) -> list[Table]:
        """Tables with runs, and Table 1, which needs no runs."""
        return [table for table in self.tables if table.filled or table.name == "table1"]

    @property
    def first(self) -> list[SweepTable]:
        """The sections before the paper's claims: the user's sweeps, and all others where no such claim is tested."""
        return [sweep for sweep in self.sweeps if self._leads(sweep)]

    @property
    def later(self) -> list[SweepTable]:
        """The sections after the paper's claims, which say more about the same runs."""
        return [sweep for sweep in self.sweeps if not self._leads(sweep)]

    def _leads(self, sweep: SweepTable) -> bool:
        return sweep.of_user or all(verdict.verdict == "not tested" for verdict in divided(self.verdicts)[1])


def answer(report: Report) -> str:
    """One sentence: what the runs answer, or why they answer nothing."""
    claimed, papers = divided(report.verdicts)
    return answer_of(main_setup(report.runs), report.sweeps, claimed, papers) or summary(report)[0]


def summary(report: Report) -> list[str]:
    """Three sentences: the runs, their results, and what is not tested."""
    done = main_setup(report.runs)
    counts = counted(divided(report.verdicts)[1])
    if not len(done) and report.controls.scores:
        return [
            "Every finished run is of planted text: these are controls.",
            *controls_summary(report.controls),
            "Nothing that the paper claims is judged by them.",
        ]
    if not len(done):
        return [
            "No run has finished yet.",
            "Nothing can be judged.",
            f"`{command_name('status')}` shows what runs.",
        ]
    arms, seeds = done["arm"].nunique(), done["seed"].nunique()
    shapes = sorted({f"{h}×{n}" for h, n in zip(done["hidden"], done["layers"], strict=True)})
    taken = sorted({int(steps) for steps in done["steps"].dropna()})
    steps = f"{taken[0]:,} steps" if len(taken) == 1 else f"{done['tokens'].mean() / 1e6:.1f} M tokens"
    papers = divided(report.verdicts)[1]
    trained = f"{plural(len(done), 'finished run')} of one set-up, {plural(arms, 'arm')} with {plural(seeds, 'seed')}"
    first = f"{trained}, trained models of H×L = {', '.join(shapes[:3])} for {steps}"
    if on_plateau(done):
        untested = f"None of the {len(papers)} claims of {whose(papers)} can be judged."
        return [f"{first}.", untested, "An arm below its baseline is never compared with another one."]
    first += ": not the paper's scale, so direction and order can be compared, sizes cannot."
    tested = len(papers) - counts["not tested"]
    if not tested:
        return [
            first,
            f"They can test no claim of {whose(papers).replace('both papers', 'either paper')}.",
            f"{untested_summary(papers)}.",
        ]
    second = (
        f"They can test {plural(tested, 'claim')} of {whose(papers)}: {counts['reproduced']} reproduced, "
        f"{counts['contradicted']} contradicted and {counts['inconclusive']} inconclusive"
        f"{_contradicted(papers)}."
    )
    unjudged = [v for v in papers if v.verdict == "not tested" and v.arms]
    third = f"{counts['not tested']} claims are not tested"
    third += f", {len(unjudged)} of them because an arm must not be compared" if unjudged else ""
    strongest = max((v for v in papers if v.verdict == "reproduced"), key=lambda v: -v.adjusted, default=None)
    third += f"; most firmly reproduced: {_quoted(strongest.claim.claim)}" if strongest else "; none is reproduced yet"
    return [first, second, f"{third}."]


def details(report: Report) -> str:
    """The summary without what the answer says."""
    said, claimed = answer(report), f" claims of {whose(divided(report.verdicts)[1])} these runs can test "
    sentences = [sentence for sentence in summary(report) if sentence != said]
    if claimed in said:  # the answer has the numbers of the second sentence
        contradicted = _contradicted(divided(report.verdicts)[1]).removeprefix("; ")
        sentences[1:2] = [f"{contradicted[0].upper()}{contradicted[1:]}."] if contradicted else []
    return " ".join(sentences)


def control_summary(report: Report) -> list[str]:
    """The results of the controls on planted text as sentences; empty without controls."""
    return controls_summary(report.controls)


def cautions(report: Report) -> list[str]:
    """Cautions above the numbers: sentences about the code, the copies and the set-ups of the runs."""
    return [*of_runs(report.runs), *judged_in_one_setup([v.left_out for v in report.verdicts])]


def missing(report: Report) -> list[str]:
    """What the report cannot show and why, a line each."""
    lines = [
        f"{t.heading}, {', '.join(row.labels)}: {t.selection.waiting[row.arm]}"
        for t in report.tables
        if t.filled
        for row in t.rows
        if row.arm in t.selection.waiting
    ]
    silent = {family for family in _UNNAMED if not is_there(report.runs, OF_FAMILY[family])}
    empty = [t for t in report.tables if t not in report.filled and paper.family(t.name) not in silent]
    folded = {
        whose: group
        for whose, (_, families) in _OTHERS.items()
        if len(group := [t for t in empty if paper.family(t.name) in families])
        == len([name for name in REFERENCES if paper.family(name) in families])
    }
    lines += [
        f"{t.heading}: fewer than two of its arms have runs ({command_name('sweep')} sweep={t.name})"
        for t in empty
        if not any(t in group for group in folded.values())
    ]
    lines += [
        f"{whose} tables: no two arms of one have runs ({command_name('sweep')} sweep={_OTHERS[whose][0]})"
        for whose in folded
    ]
    lines += [f"Figure {name.removeprefix('figure')}: {why}" for name, why in report.undrawn.items()]
    unfinished = report.runs[(report.runs["state"] != "finished") | (report.runs["note"] != "")]
    lines += [
        f"{short(run['path']) if run['state'] == 'copy' else run['run']}: {run['state']}"
        f"{', ' if run['note'] else ''}{run['note']}"
        for run in unfinished.to_dict("records")
    ]
    return lines


def untested_summary(papers: Sequence[Verdict]) -> str:
    """``24 claims of the paper need other runs``, and how many have runs that cannot be judged."""
    untested = [v for v in papers if v.verdict == "not tested"]
    unfit_count = sum(bool(v.arms) for v in untested)
    text = f"{plural(len(untested), 'claim')} of {whose(papers)} {'needs' if len(untested) == 1 else 'need'} other runs"
    return f"{text}, {unfit_count} of them because an arm is not fit to be judged" if unfit_count else text


def subtitle_of(runs: pd.DataFrame) -> str:
    """Under the title: how many runs are finished, on which data and devices, and the time of training."""
    runs = runs[runs["state"] != "copy"]
    done = runs[runs["state"] == "finished"]
    corpora = sorted({str(data.get("corpus")) for data in done["data"] if isinstance(data, dict)})
    devices = sorted({str(device) for device in done["device"].dropna()})
    spent = duration(float(done["seconds"].sum())) if len(done) else "0 s"
    where = f"data: {', '.join(corpora) or '—'} · {', '.join(devices) or '—'}"
    return f"{len(done)} of {len(runs)} runs finished · {where} · {spent} of training"


def footer_of(runs: pd.DataFrame) -> str:
    """At the end of the page: the code of the runs, and the paper."""
    commits = sorted({str(commit)[:10] for commit in runs["commit"].dropna()})
    record, electra = paper.record()["paper"], paper.record("electra")["paper"]
    methods = [MethodName(name) for name in set(runs[METHOD.name].dropna())]
    more = ""
    if any(method.corrupts for method in methods):
        more = f" ELECTRA's: Clark et al., {electra['title']}, ICLR 2020 (arXiv {electra['arxiv']})."
    students, shapes = paper.record("distillation")["papers"], paper.record("shapes")["papers"]
    for name, which in (
        ("DistilBERT", students), ("TinyBERT", students), ("MobileBERT", shapes), ("BigBird", shapes),
    ):  # fmt: skip
        if is_there(runs, OF_FAMILY[name.lower()]):
            cited = which[name.lower()]
            more += f" {name}'s: {cited['authors'].split(',')[0]} et al., {cited['title']} (arXiv {cited['arxiv']})."
    return (
        f"Made by albert-ablate from run folders; code of {', '.join(commits) or 'unknown commits'}. "
        f"The paper's numbers: Lan et al., {record['title']}, ICLR 2020 (arXiv {record['arxiv']}, v6).{more}"
    )


def plural(count: int, noun: str) -> str:
    """``1 claim``, ``2 claims``."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _contradicted(verdicts: Sequence[Verdict], most: int = 3) -> str:
    claims = [_quoted(v.claim.claim) for v in verdicts if v.verdict == "contradicted"]
    more = f" and {len(claims) - most} more" if len(claims) > most else ""
    return f"; contradicted: {', '.join(claims[:most])}{more}" if claims else ""


def _quoted(claim: str) -> str:
    return f"“{claim.rstrip('.')}”"
