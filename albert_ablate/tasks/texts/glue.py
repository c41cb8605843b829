"""The nine tasks of GLUE: official files, columns, labels in the released order, and metrics.

Label order and columns as in the reference's classifier_utils, metrics as on gluebenchmark.com.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class GlueTask:
    """One task. Each column lists its names in different distributions, the official name first."""

    folder: str  # of the official archive
    first: tuple[str, ...]
    second: tuple[str, ...] | None
    target: tuple[str, ...]
    labels: tuple[str, ...] | None  # in order; None: a number
    metrics: tuple[str, ...]  # official metrics; their mean is the task's score
    dev: dict[str, str]  # name of a dev set -> stem of its file
    test: dict[str, str]  # name of a test set -> stem of its file
    submission: dict[str, str]  # name of a set -> official name of its prediction file
    header: tuple[str, ...] | None = None  # columns of official files without a header line
    hub_dev: dict[str, str] | None = None  # name of a dev set -> split on the hub
    short_rows: bool = False  # the official files have some rows with too few fields
    words: bool = False  # the submission holds label names, not numbers


_DEV, _TEST = {"dev": "dev"}, {"test": "test"}


def _names(name: str) -> dict[str, str]:
    return {"dev": name, "test": name}


GLUE = {
    "cola": GlueTask(
        "CoLA", ("sentence",), None, ("label",), ("0", "1"), ("matthews",), _DEV, _TEST, _names("CoLA"),
        header=("source", "label", "star", "sentence"),
    ),
    "sst2": GlueTask(
        "SST-2", ("sentence",), None, ("label",), ("0", "1"), ("accuracy",), _DEV, _TEST, _names("SST-2")
    ),
    "mrpc": GlueTask(
        "MRPC", ("#1 String", "sentence1"), ("#2 String", "sentence2"), ("Quality", "label"), ("0", "1"),
        ("f1", "accuracy"), _DEV, _TEST, _names("MRPC"),
    ),
    "stsb": GlueTask(
        "STS-B", ("sentence1",), ("sentence2",), ("score", "label"), None, ("pearson", "spearman"), _DEV, _TEST,
        _names("STS-B"),
    ),
    "qqp": GlueTask(
        "QQP", ("question1",), ("question2",), ("is_duplicate", "label"), ("0", "1"), ("accuracy", "f1"), _DEV, _TEST,
        _names("QQP"), short_rows=True,
    ),
    "mnli": GlueTask(
        "MNLI", ("sentence1", "premise"), ("sentence2", "hypothesis"), ("gold_label", "label"),
        ("contradiction", "entailment", "neutral"), ("accuracy",),
        {"matched": "dev_matched", "mismatched": "dev_mismatched"},
        {"test_matched": "test_matched", "test_mismatched": "test_mismatched"},
        {"matched": "MNLI-m", "mismatched": "MNLI-mm", "test_matched": "MNLI-m", "test_mismatched": "MNLI-mm"},
        hub_dev={"matched": "validation_matched", "mismatched": "validation_mismatched"}, words=True,
    ),
    "qnli": GlueTask(
        "QNLI", ("question",), ("sentence",), ("label",), ("entailment", "not_entailment"), ("accuracy",), _DEV, _TEST,
        _names("QNLI"), words=True,
    ),
    "rte": GlueTask(
        "RTE", ("sentence1",), ("sentence2",), ("label",), ("entailment", "not_entailment"), ("accuracy",), _DEV,
        _TEST, _names("RTE"), words=True,
    ),
    "wnli": GlueTask(
        "WNLI", ("sentence1",), ("sentence2",), ("label",), ("0", "1"), ("accuracy",), _DEV, _TEST, _names("WNLI")
    ),
}  # fmt: skip
