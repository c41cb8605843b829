"""Checks ``runs.csv`` against the run folders, column by column."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from albert_ablate.axes import AXES, SENTENCE_TASKS

from .arms import base_of
from .checks import Check, compare, unknown
from .controls import strengths
from .files import at
from .prompted import pairs
from .runs import Run

_SECTION = "runs.csv"


def _setting(path: str, before: Any = None) -> Callable[[Run], Any]:
    """Reads a setting: ``before`` where an older run lacks it, None for a run without settings."""
    return lambda run: before if run.config and at(run.config, path) is None else at(run.config, path)


def _result(path: str) -> Callable[[Run], Any]:
    return lambda run: at(run.results, path)


def _left(score: str) -> Callable[[Run], Any]:
    """Reads whether a baseline was left; None for an imported model, which was not trained here."""

    def left(run: Run) -> Any:
        return None if "imported" in run.results else at(run.results, f"{score}.left_baseline")

    return left


def _manifest(path: str) -> Callable[[Run], Any]:
    return lambda run: at(run.manifest, path)


def _last(name: str, line: str) -> Callable[[Run], Any]:
    """Reads a total of a trained run: from the last line of the metrics, else from results.json."""

    def read(run: Run) -> Any:
        recorded = at(run.results, f"training.{name}")
        logged = run.lines[-1].get(line) if run.lines else None
        return recorded if recorded is None or logged is None else logged

    return read


def _in_all(name: str) -> Callable[[Run], Any]:
    """Reads a total of a finished run and of those that it continues; None for any other run."""

    def read(run: Run) -> Any:
        before, own = at(run.manifest, f"continued_from.{name}"), _last(name, name)(run)
        return None if before is None or own is None or not run.results else before + own

    return read


def _latency(form: str, key: str) -> Callable[[Run], Any]:
    return lambda run: run.latency(form).get(key)


def _base(index: int) -> Callable[[Run], Any]:
    return lambda run: base_of(run.config)[index] if at(run.config, "model.hidden") is not None else None


def _mlm_interval(run: Run) -> Any:
    """The interval with pieces taken as independent, where it is recorded; else the other one."""
    return at(run.results, "masked_lm.binomial_interval") or at(run.results, "masked_lm.interval")


#: Column -> (its file in the run folder, the function that reads it).
_COLUMNS: dict[str, tuple[str, Callable[[Run], Any]]] = {
    "identity": ("manifest.json", lambda run: run.identity),
    "state": ("status.json", lambda run: run.state),
    "seed": ("config.yaml", _setting("seed")),
    "model": ("config.yaml", _setting("model.name")),
    **{axis.name: ("config.yaml", _setting(axis.path, axis.before)) for axis in AXES},
    "hidden": ("config.yaml", _setting("model.hidden")),
    "layers": ("config.yaml", _setting("model.layers")),
    "base_hidden": ("config.yaml", _base(0)),
    "base_layers": ("config.yaml", _base(1)),
    "steps": ("metrics.jsonl", _last("steps", "step")),
    **{name: ("metrics.jsonl", _last(name, name)) for name in ("tokens", "flops", "seconds")},
    "tokens_per_second": ("metrics.jsonl", lambda run: run.speed),
    "speed_spread": ("metrics.jsonl", lambda run: run.unevenness),
    "evaluation_seconds": ("results.json", _result("evaluation.seconds")),
    **{
        f"params_{rule}": ("manifest.json", _manifest(f"parameters.{rule}"))
        for rule in ("encoder", "with_pooler", "with_heads")
    },
    "flops_per_step": ("manifest.json", _manifest("flops_per_step")),
    "pairs_seen": ("manifest.json", _manifest("blocks.pairs_seen")),
    "continued_from": ("manifest.json", _manifest("continued_from.run")),
    **{f"{name}_in_all": ("manifest.json", _in_all(name)) for name in ("tokens", "flops")},
    "inference_ms": ("results.json", _result("inference.milliseconds")),
    "inference_setting": ("results.json", lambda run: run.inference_setting),
    "inference_spread": ("results.json", lambda run: run.inference_spread),
    **{
        f"{column}_{name}": ("latency.json", _latency(form, key))
        for form, column in (("eager", "latency"), ("onnx", "latency_onnx"))
        for name, key in (("ms", "milliseconds"), ("interval", "interval"), ("setting", "setting"))
    },
    "teacher": ("manifest.json", lambda run: _manifest("teacher.identity")(run) or _setting("method.teacher_run")(run)),
    "teacher_flops_per_step": ("manifest.json", _manifest("teacher.flops_per_step")),
    "teacher_training_flops": ("manifest.json", _manifest("teacher.training_flops")),
    "mlm_loss": ("results.json", _result("masked_lm.loss")),
    "mlm": ("results.json", _result("masked_lm.accuracy")),
    "mlm_interval": ("results.json", _mlm_interval),
    "mlm_loss_interval": ("results.json", _result("masked_lm.loss_interval")),
    "unigram_loss": ("results.json", _result("masked_lm.unigram_loss")),
    "bigram_loss": ("results.json", _result("masked_lm.bigram_loss")),
    "mlm_left_baseline": ("results.json", _left("masked_lm")),
    **{f"{task}_left_baseline": ("results.json", _left(task)) for task in SENTENCE_TASKS},
    **{
        f"replaced_{name}": ("results.json", _result(f"replaced_tokens.{name}"))
        for name in ("auc", "interval", "loss", "token_auc")
    },
    "replaced_left_baseline": ("results.json", _left("replaced_tokens")),
    **{
        column: ("results.json", _result(f"causal_lm.{path}"))
        for column, path in (
            ("bits_per_byte", "bits_per_byte"), ("bits_per_byte_interval", "bits_per_byte_interval"),
            ("causal_loss", "loss"), ("causal", "accuracy"), ("causal_unigram_loss", "unigram_loss"),
            ("causal_bigram_loss", "bigram_loss"), ("context_gain", "context.gain"),
            ("context_gain_interval", "context.interval"),
        )
    },
    "causal_left_baseline": ("results.json", _left("causal_lm")),
    **{
        f"discriminator_{name}": ("results.json", _result(f"discriminator.{name}"))
        for name in ("auc", "token_auc", "left_baseline")
    },
    **{f"generator_{name}": ("results.json", _result(f"generator.{name}")) for name in ("loss", "left_baseline")},
    "planted": ("config.yaml", lambda run: strengths(run.config)),
    **{f"{task}_majority": ("results.json", _result(f"{task}.majority_class")) for task in SENTENCE_TASKS},
    **{f"achievable_{task}": ("results.json", _result(f"achievable.{task}.accuracy")) for task in SENTENCE_TASKS},
    "achievable_mlm_loss": ("results.json", _result("achievable.masked_lm.loss")),
    "achievable_mlm": ("results.json", _result("achievable.masked_lm.accuracy")),
    "chance_mlm_loss": ("results.json", _result("achievable.masked_lm.chance_loss")),
    **{
        f"{task}{suffix}": ("results.json", _result(f"{task}.{path}"))
        for task in SENTENCE_TASKS
        for suffix, path in (
            ("", "accuracy"), ("_head", "head"), ("_interval", "interval"), ("_own_head", "own_head.accuracy"),
            ("_own_head_interval", "own_head.interval"),
        )
    },
    "l2": ("similarity.json", lambda run: run.similarity.get("l2")),
    "degrees": ("similarity.json", lambda run: run.similarity.get("degrees")),
    "minimal_pairs": ("results.json", pairs),
    "commit": ("manifest.json", _manifest("source.commit")),
    "dirty": ("manifest.json", _manifest("source.dirty")),
    "tokens_fingerprint": ("manifest.json", _manifest("data.tokens.fingerprint")),
    "precision": ("manifest.json", _manifest("precision")),
    "device": ("manifest.json", _manifest("hardware.device")),
    "torch": ("manifest.json", _manifest("packages.torch")),
}  # fmt: skip
#: Columns of text that are not compared.
_WORDS = ("run", "note")
_AS_TEXT = ("identity", "teacher", "continued_from", "commit", "tokens_fingerprint")


def check(rows: Sequence[dict[str, str]], runs: Sequence[Run]) -> list[Check]:
    """Checks of every column of every run; a row without a folder is a disagreement."""
    checks: list[Check] = []
    by_name: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.state == "copy"):
        by_name.setdefault(run.name, []).append(run)
    for row in sorted(rows, key=lambda row: row["state"] == "copy"):
        several = by_name.get(row["run"])
        if not several:
            checks.append(compare(_SECTION, row["run"], "a row", "no such run folder", "the folders given"))
            continue
        checks += _of_run(row, several.pop(0))
    return checks


def _of_run(row: dict[str, str], run: Run) -> list[Check]:
    checks = []
    for name, cell in row.items():
        where = f"{run.name} · {name}"
        if name == "updated":
            file = str(run.folder / "status.json")
            checks.append(compare(_SECTION, where, str(_time(cell)), str(run.updated), file))
        elif name in _COLUMNS:
            file, derive = _COLUMNS[name]
            derived = derive(run)
            text = name in _AS_TEXT and derived is not None
            reported, wanted = (f"={cell}", f"={derived}") if text else (cell, derived)
            checks.append(compare(_SECTION, where, reported, wanted, str(run.folder / file)))
        elif name not in _WORDS:
            checks.append(unknown(_SECTION, where, cell, "a column that this check does not know"))
    return checks


def _time(cell: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(cell)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
