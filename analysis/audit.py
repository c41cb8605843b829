"""Checks a report against the raw files: ``python -m analysis.audit runs --report report``.

Every number of the tables, their differences, the scorecard and ``runs.csv`` is computed a second time from the run
folders, by separate code (``analysis/recount/``). Without ``--report``, the report is made first from the same folders.
"""

import csv
import io
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from albert_ablate.arguments import Parser
from albert_ablate.command_line import command_name, program
from albert_ablate.console import command
from albert_ablate.errors import ConfigError, UserError
from albert_ablate.files import write_text

from .judge.claims import load_all
from .read.copies import without_copies
from .read.places import require_file, run_folders
from .read.runs import read_folders
from .recount import columns, controls, fine_tunings, held_out, pages, parameters, prompted, sweeps, targets, verdicts
from .recount.arms import folders
from .recount.checks import AGREES, DISAGREES, NOTHING, OPEN, Check
from .recount.files import read_table
from .recount.printed import heading
from .recount.runs import Run, link_teachers, mark_copies
from .recount.tables import AGAINST, TableCheck
from .report import frames, gather, where
from .write.content import Report
from .write.page import markdown

Rows = list[dict[str, str]]
_COLUMNS = ("section", "where", "state", "reported", "re-derived", "from", "why")
#: The heading of the scorecard in report.md.
_OF_USER = "Your claims"
_CLAIMED = "What the paper claims, and what these runs say"
_CLAIMS = Path(__file__).with_name("claims.yaml")
_ELECTRA = Path(__file__).with_name("electra_claims.yaml")
_DISTILLATION = Path(__file__).with_name("distillation_claims.yaml")
_QUEST = Path(__file__).with_name("quest_claims.yaml")
_FACTS = Path(__file__).with_name("knowledge_claims.yaml")
_CAUSAL = Path(__file__).with_name("causal_claims.yaml")
_BIGBIRD = Path(__file__).with_name("bigbird_claims.yaml")
_MOBILEBERT = Path(__file__).with_name("mobilebert_claims.yaml")
_CONTROLS = Path(__file__).with_name("controls.yaml")


class Reported:
    """The numbers of a report: file (``tables/table4.csv``) -> rows, and the text of ``report.md``."""

    def __init__(self, files: dict[str, Rows], page: str) -> None:
        self.files = files
        self.page = page

    @classmethod
    def read(cls, folder: Path) -> "Reported":
        """A written report. Raises ConfigError where ``folder`` holds no report or a file cannot be read."""
        needed = [folder / "runs.csv", folder / "scorecard.csv"]
        if missing := [file.name for file in needed if not file.is_file()]:
            what = "there is no such folder" if not folder.exists() else f"it has no {' and no '.join(missing)}"
            raise ConfigError(
                f"--report {folder}: no report: {what}. {command_name('report')} RUNS --out {folder} writes one."
            )
        files = {}
        inner = [file for name in ("sweeps", "tables") for file in sorted((folder / name).glob("*.csv"))]
        for file in (
            *needed,
            *folder.glob("controls.csv"),
            *folder.glob("kshot.csv"),
            *folder.glob("targets.csv"),
            *inner,
        ):
            try:
                files[str(file.relative_to(folder))] = read_table(file)
            except (OSError, UnicodeError, csv.Error) as error:
                raise ConfigError(f"--report {folder}: {file} cannot be read ({error}).") from None
        page = folder / "report.md"
        return cls(files, page.read_text(encoding="utf-8", errors="replace") if page.is_file() else "")

    @classmethod
    def made(cls, report: Report) -> "Reported":
        """A report in memory: every number as its CSV file would hold it."""
        texts = {name: frame.to_csv(index=False) for name, frame in frames(report).items()}
        return cls({name: list(csv.DictReader(io.StringIO(text))) for name, text in texts.items()}, markdown(report))

    def runs_of(self, paths: Sequence[Path]) -> list[Run]:
        """The run folders in ``paths`` that the report was made from. Raises UserError where one is missing."""
        candidates = [Run(folder) for folder in folders(paths)]
        mark_copies(candidates)
        rows = Counter(row["run"] for row in self.files["runs.csv"])
        missing = sorted((rows - Counter(run.name for run in candidates)).elements())
        if missing:
            raise UserError(
                f"{', '.join(map(str, paths))}: {len(missing)} of the report's {rows.total()} runs have no folder "
                f"there ({', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}), so its numbers cannot be "
                "derived again. Name every folder that its runs lie in."
            )
        return [run for run in candidates if run.name in rows]


def audit(
    reported: Reported,
    runs: Sequence[Run],
    claims: Sequence[dict[str, Any]],
    data: Path | None = None,
    survivors: bool = False,
) -> list[Check]:
    """Compares every number of the report with the number derived from the raw files.

    ``data``: folder of task files with the right answers; ``survivors``: whether the report was made with it.
    """
    link_teachers(runs)
    checks = columns.check(reported.files["runs.csv"], runs)
    for run in runs:
        if run.state != "copy":
            checks += parameters.check(run)
            checks += parameters.check_flops(run)
            checks += held_out.check(run)
            checks += fine_tunings.check(run, data)
    checks += prompted.check(reported.files.get("kshot.csv", []), runs)
    checks += targets.check(reported.files.get("targets.csv", []), runs)
    printed, of_page = pages.read(reported.page), list[Check]()
    for name in ("table1", *AGAINST):
        rows = reported.files.get(f"tables/{name}.csv")
        if rows is not None:
            table = TableCheck(name, rows, runs, survivors)
            checks += table.cells()
            checks += table.differences(reported.files.get(f"tables/{name}-differences.csv", []))
            if reported.page:
                of_page += pages.check_table(table, printed.get(heading(name)))
    claim_checks, derived = verdicts.check(reported.files["scorecard.csv"], claims, runs, survivors)
    checks += claim_checks
    checks += controls.check(reported.files.get("controls.csv", []), runs)
    checks += sweeps.check(reported.files, runs)
    natural = [row for row in derived if row["text"] == "natural"]
    # A report on controls alone has one sentence instead of the scorecard.
    folded = len(natural) < len(derived) and all(row["verdict"] == "not tested" for row in natural)
    shown = reported.page and natural and not folded
    if shown:
        of_user = printed.get(_OF_USER, [])
        papers = len(natural) - sum(map(len, of_user))  # the user's claims are the last ones of the scorecard
        expected = [*natural[papers:], *(row for row in natural[:papers] if row["verdict"] != "not tested")]
        of_page += pages.check_claims([*of_user, *printed.get(_CLAIMED, [])], expected)
    checks += of_page
    return [check for check in checks if check.reported != NOTHING or check.derived != NOTHING or check.state == OPEN]


def summary(checks: Sequence[Check]) -> dict[str, tuple[int, int, int, int]]:
    """Section -> number of cells in all, that agree, that disagree, that are not re-derived; in order of the checks."""
    counts: dict[str, Counter[str]] = {}
    for check in checks:
        counts.setdefault(check.section, Counter())[check.state] += 1
    return {name: (c.total(), c[AGREES], c[DISAGREES], c[OPEN]) for name, c in counts.items()}


def _tell(checks: Sequence[Check]) -> None:
    console = Console(highlight=False)
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    for name in ("section", "cells", "agree", "disagree", "not re-derived"):
        table.add_column(name, justify="left" if name == "section" else "right", no_wrap=True)
    lines = summary(checks)
    for name, counts in lines.items():
        table.add_row(name, *(f"{count:,}" if count else "·" for count in counts))
    table.add_row("in all", *(f"{sum(column):,}" for column in zip(*lines.values(), strict=True)), style="bold")
    console.print(table)
    wrong = [check for check in checks if check.state == DISAGREES]
    if wrong:
        console.print()
    for c in wrong:
        line = f"{c.section} · {c.where}: reported {c.reported}, re-derived {c.derived} (from {c.source})"
        console.print(line, style="red", markup=False, soft_wrap=True)
    reasons = Counter((c.section, c.reason) for c in checks if c.state == OPEN)
    if reasons:
        console.print("\nNot re-derived:")
    for (section, reason), count in reasons.items():
        console.print(f"  {count:,} of {section}: {reason}", markup=False)
    console.print(f"\n{_verdict(len(wrong), len(checks))}", markup=False)


def _verdict(wrong: int, checked: int) -> str:
    if wrong:
        return f"{wrong:,} of {checked:,} cells disagree with the raw files."
    return f"No cell of {checked:,} disagrees with the raw files."


def _write(checks: Sequence[Check], file: Path) -> None:
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(_COLUMNS)
    lines.writerows((c.section, c.where, c.state, c.reported, c.derived, c.source, c.reason) for c in checks)
    write_text(file, text.getvalue())


def _claims(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Entries of the papers' claims files, of the controls and of ``files``, as written. Raises ConfigError."""
    load_all([_CONTROLS, *files])  # raises ConfigError for a faulty file
    own = (_CLAIMS, _ELECTRA, _DISTILLATION, _QUEST, _FACTS, _CAUSAL, _BIGBIRD, _MOBILEBERT, _CONTROLS)
    return [entry for file in (*own, *files) for entry in yaml.safe_load(file.read_text(encoding="utf-8"))]


def _require_raw(paths: Sequence[Path]) -> None:
    """Raises UserError for a path that is a report, and NoRunsError for a path without run folders."""
    for path in paths:
        if (path / "scorecard.csv").is_file() and not folders([path]):
            raise UserError(
                f"{path}: a report, not the runs that it was made from: it holds no run folders, so none of its "
                f"numbers can be derived again. Name their folder: {command_name('audit')} runs --report {path}"
            )
        run_folders(path)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Exit code 0 if nothing disagrees, 1 if a number disagrees or there are no runs."""
    parser = Parser(prog=program("audit"), description="A report's numbers derived a second time, from the raw files.")
    parser.add_argument("runs", type=Path, nargs="+", help="folders of run folders, such as runs")
    parser.add_argument("--report", type=Path, metavar="DIR", help="a written report (default: one is made in memory)")
    parser.add_argument("--claims", type=Path, action="append", default=[], help="a claims file of the report")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="SETTING=VALUE",
        help="without --report: only runs with this setting",
    )
    parser.add_argument("--survivors", action="store_true", help="if the report was made with it")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the task files, for the right answers")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write every cell to this file")
    options = parser.parse_args(arguments)
    if options.report is not None and options.where:
        raise ConfigError("--where: a written report has its runs already. Leave out --where or --report.")
    if options.data is not None and not options.data.is_dir():
        raise ConfigError(f"--data {options.data}: no such folder.")
    if options.csv is not None:
        require_file("--csv", options.csv, ",".join(_COLUMNS[:3]))
    claims = _claims(options.claims)
    _require_raw(options.runs)
    if options.report is not None:
        reported = Reported.read(options.report)
    else:
        chosen = without_copies(where(read_folders(*options.runs), options.where))
        reported = Reported.made(
            gather(chosen, load_all([_CONTROLS, *options.claims]), survivors=options.survivors, draw=False)
        )
    checks = audit(reported, reported.runs_of(options.runs), claims, options.data, options.survivors)
    if options.csv is not None:
        _write(checks, options.csv)
    _tell(checks)
    return int(any(check.state == DISAGREES for check in checks))


if __name__ == "__main__":
    sys.exit(main())
