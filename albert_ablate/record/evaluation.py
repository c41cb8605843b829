"""A file of ``evaluations/``: a later evaluation of a run, on any text."""

from typing import Any

from albert_ablate.record.manifest import Data
from albert_ablate.record.part import Part
from albert_ablate.record.results import Results
from albert_ablate.record.similarity import Similarity


class EvaluationRecord(Part):
    """The measurements of ``albert_ablate.commands.evaluate``, with run, settings and text."""

    run: str
    state: str  # of the run
    checkpoint: str
    precision: str
    settings: dict[str, dict[str, Any]]  # of data, evaluation, pairs and masking, as in ``config``
    data: Data
    missing: list[str]  # heads that an imported model does not have
    results: Results
    similarity: Similarity
