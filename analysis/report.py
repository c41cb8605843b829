"""The whole report: ``python -m analysis.report runs --out report``.

Writes ``index.html`` (self-contained), ``report.md``, ``scorecard.csv``, ``runs.csv``, ``sweeps/`` (CSV), ``tables/``
(Markdown, LaTeX, CSV) and ``figures/`` (PNG, SVG, PDF, CSV). ``--compact`` writes only what a repository should keep.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from rich.console import Console

from albert_ablate.arguments import Parser
from albert_ablate.command_line import program
from albert_ablate.console import command
from albert_ablate.errors import ConfigError, UserError
from albert_ablate.files import write_text

from .draw import style
from .figures import draw_all, draw_forests
from .judge import controls, prompted, targets
from .judge.claims import VERDICTS, Claim, counted, in_question, judge, load_all, scorecard
from .judge.effects import build_sweep
from .judge.paper_effects import with_paper
from .judge.tables import REFERENCES, build, configurations
from .parameters import count, overrides_of
from .read.copies import without_copies
from .read.places import require_ours, require_writable
from .read.runs import read_folders, setting
from .read.sweeps import groups
from .write import content, latex, own, page, render
from .write.content import Report

_TITLE = "ALBERT's choices, ablated"
#: Columns left out of ``runs.csv``: nested values, and paths of this machine.
_NESTED = ("tasks", "kshot", "deviations", "config", "data", "path", "copy_of", "code_unknown", "taught_by")

#: Files and folders that a report writes.
_FILES = (
    "index.html",
    "report.md",
    "scorecard.csv",
    "runs.csv",
    "kshot.csv",
    "targets.csv",
    "controls.csv",
    "sweeps",
    "tables",
    "figures",
)


def gather(
    runs: pd.DataFrame, claims: Sequence[Claim], title: str = "", survivors: bool = False, *, draw: bool = True
) -> Report:
    """Tables, verdicts and, with ``draw``, figures of ``runs``.

    ``survivors``: judge arms with a diverged seed by their remaining seeds.
    """
    tables = (configurations(_counts), *(build(runs, name, survivors) for name in REFERENCES))
    drawings, undrawn = draw_all(runs) if draw else ([], {})
    papers, planted = controls.divided(in_question(runs, claims))
    verdicts, known = tuple(judge(runs, papers, survivors)), controls.controls_of(runs, planted, survivors)
    sweeps = [build_sweep(group, number, survivors) for number, group in enumerate(groups(runs), 1)]
    sweeps = [with_paper(sweep, verdicts) for sweep in sweeps]
    forests = draw_forests(sweeps) if draw else {}
    title = title or next((sweep.title for sweep in sweeps if sweep.of_user), _TITLE)
    return Report(title, runs, tables, verdicts, tuple(drawings), undrawn, known, tuple(sweeps), forests)


def write(report: Report, out: Path, *, compact: bool = False) -> Path:
    """Writes every file of the report to ``out``; returns the file to open.

    ``compact`` leaves out the page, LaTeX, PNG, PDF and the tables without runs, and names no folder of this machine.
    """
    write_text(out / "report.md", page.markdown(report))
    if not compact:
        write_text(out / "index.html", page.html(report))
    for table in () if compact else report.tables:
        stem = out / "tables" / table.name
        write_text(stem.with_suffix(".md"), render.markdown(table))
        write_text(stem.with_suffix(".tex"), latex.latex(table))
    for name, numbers in frames(report, compact=compact).items():
        write_text(out / name, numbers.to_csv(index=False))
    for drawing in (*report.forests.values(), *report.drawings):
        style.write(drawing, out / "figures", ("svg",) if compact else ("png", "svg", "pdf"))
    return out / ("report.md" if compact else "index.html")


def report_on(
    places: Sequence[Path | str], out: Path, *, claims: Sequence[Path] = (), conditions: Sequence[str] = (),
    title: str = "", survivors: bool = False, compact: bool = False,
) -> tuple[Report, Path]:  # fmt: skip
    """Read the runs under ``places``, judge them and write the report to ``out``; the file to open is returned too.

    ``claims`` are files of claims beside the paper's, ``conditions`` those of ``where``. Raises UserError: no runs, a
    claims file that cannot be used, or a folder that cannot be written or holds something else.
    """
    judged = load_all([controls.CLAIMS, *claims])
    require_writable("--out", out)
    require_ours("--out", out, _FILES, "scorecard.csv", "id,claim,source,")
    report = gather(without_copies(where(read_folders(*places), conditions)), judged, title, survivors)
    try:
        return report, write(report, out, compact=compact)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror}).") from error


def frames(report: Report, *, compact: bool = False) -> dict[str, pd.DataFrame]:
    """File -> its table of numbers, for every CSV file; ``compact`` leaves out the tables without runs."""
    by_file = {"scorecard.csv": _scorecard(report), "runs.csv": report.runs.drop(columns=list(_NESTED))}
    by_file |= own.frames(report.sweeps)
    if len(prompts := prompted.frame(report.runs)):
        by_file["kshot.csv"] = prompts
    if len(by_target := targets.frame(report.runs)):
        by_file["targets.csv"] = by_target
    if report.controls.scores:
        by_file["controls.csv"] = controls.frame(report.controls)
    for table in report.filled if compact else report.tables:
        by_file[f"tables/{table.name}.csv"] = render.frame(table)
        if table.comparisons:
            by_file[f"tables/{table.name}-differences.csv"] = render.differences(table)
    return by_file


def _scorecard(report: Report) -> pd.DataFrame:
    """The verdicts, with ``natural`` or ``planted`` in the last column."""
    verdicts = scorecard(report.verdicts).assign(text="natural")
    if not report.controls.shown:
        return verdicts
    return pd.concat([verdicts, scorecard(report.controls.verdicts).assign(text="planted")])


def where(runs: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """The runs that meet all conditions (``budget.steps=3500``). Raises ConfigError for one that no run meets."""
    for condition in conditions:
        name, equals, value = condition.partition("=")
        if not equals:
            raise ConfigError(f"--where {condition}: give a setting and its value, such as budget.steps=3500.")
        recorded = [setting(config, name) for config in runs["config"]]
        kept = runs[
            [str(setting_value) == value or setting_value == yaml.safe_load(value) for setting_value in recorded]
        ]
        if not len(kept):
            present = sorted({str(setting_value) for setting_value in recorded})
            raise ConfigError(f"--where {condition}: no run has that; {name} is {', '.join(present)}.")
        runs = kept
    return runs.reset_index(drop=True)


def _counts(terms: Mapping[str, Any]) -> Mapping[str, int]:
    return count(["scale=paper", *overrides_of(terms)])


def _tell(report: Report, opened: Path) -> None:
    console = Console(highlight=False)
    for sentence in dict.fromkeys((content.answer(report), *content.summary(report))):
        console.print(sentence, markup=False)
    for sentence in content.cautions(report):
        console.print(f"  {sentence}", style="yellow", markup=False)
    console.print()
    width = max(map(len, VERDICTS))
    colours = {"reproduced": "green", "contradicted": "red", "inconclusive": "yellow", "not tested": "dim"}
    for verdict in report.verdicts:
        if verdict.verdict != "not tested":
            console.print(
                f"  {verdict.verdict:<{width}}  {verdict.claim.claim}",
                style=colours[verdict.verdict],
                markup=False,
                soft_wrap=True,
            )
    for sentence in content.control_summary(report):
        console.print(f"  planted text: {sentence}", markup=False, soft_wrap=True)
    ending = f"  {counted(report.verdicts)['not tested']} not tested\n\n  {opened}\n"
    console.print(ending, style="dim", markup=False)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Exit code 1 if ``--out`` cannot be written, 2 without runs and for wrong arguments or claims."""
    parser = Parser(prog=program("report"), description="Tables, figures and verdicts from run folders.")
    parser.add_argument("runs", type=Path, nargs="+", help="folders of run folders, such as runs")
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder to write (default: report)")
    parser.add_argument(
        "--claims", type=Path, action="append", default=[], help="a claims file of yours, judged with the paper's"
    )
    parser.add_argument(
        "--where", action="append", default=[], metavar="SETTING=VALUE", help="only runs with this setting"
    )
    parser.add_argument(
        "--survivors", action="store_true", help="judge an arm with a diverged seed by its remaining seeds"
    )
    parser.add_argument("--title", default="", help="default: that of your latest sweep")
    parser.add_argument("--compact", action="store_true", help="for a repository: Markdown, CSV and SVG only, no page")
    parser.add_argument(
        "--wandb", metavar="PROJECT", nargs="?", const="", help="also log the tables and the page to Weights & Biases"
    )
    options = parser.parse_args(arguments)
    report, opened = report_on(
        options.runs, options.out, claims=options.claims, conditions=options.where, title=options.title,
        survivors=options.survivors, compact=options.compact,
    )  # fmt: skip
    _tell(report, opened)
    if options.wandb is not None:
        try:
            from .write.upload import upload  # wandb loads slowly

            upload(report, options.out, options.wandb or None)
        except Exception as error:  # of a library, a network or an account: the report is written
            raise UserError(f"Not sent to Weights & Biases ({type(error).__name__}: {error}).") from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
