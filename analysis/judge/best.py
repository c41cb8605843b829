"""The best arms of a column: the arm with the best mean, and every arm that does not differ from it."""

from .metrics import metric
from .statistics import p_two_sided
from .tables import UNRANKED, Comparison, Table, compare_arms, corrected


def best_arms(table: Table) -> dict[str, frozenset[str]]:
    """Score -> the arms that are best within noise.

    Each arm is compared with the best mean, paired by seed, with Holm's correction over the column; the rule is that
    of the table's differences. Arms that must not be compared are left out. A score in which no arm differs from the
    best one is missing: there the means have no order.
    """
    best = {}
    for key in (key for column in table.columns for key in column if key not in UNRANKED):
        sign = 1 if metric(key).higher_is_better else -1
        means = {
            row.arm: sign * entry.ours.mean
            for row in table.rows
            for cell in row.cells
            for entry in cell
            if entry.metric == key and entry.ours is not None and entry.mark is None
        }
        if not means:
            continue
        first = max(means, key=lambda arm: means[arm])
        compared = corrected(_against(table, first, [arm for arm in means if arm != first], key))
        if any(c.verdict == "differs" for c in compared):
            best[key] = frozenset({first, *(c.arm for c in compared if c.verdict != "differs")})
    return best


def _against(table: Table, first: str, arms: list[str], key: str) -> list[Comparison]:
    """The difference of each arm to ``first``, where a seed has both."""
    runs = table.selection.runs
    differences = {arm: compare_arms(runs[arm], runs[first], key) for arm in arms}
    return [
        Comparison(arm, first, key, difference, None, p_two_sided(difference))
        for arm, difference in differences.items()
        if difference is not None
    ]
