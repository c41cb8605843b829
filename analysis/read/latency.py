"""What ``latency.json`` of a run says: the time of a pass over one sequence with one thread, in two forms."""

from collections.abc import Mapping, Sequence
from typing import Any

#: Tokens of the pass that is shown, where they were measured, as in MobileBERT's tables; else the nearest number.
LENGTH = 128
#: Form of a timing -> how its columns begin.
_FORMS = {"eager": "latency", "onnx": "latency_onnx"}
_WORDS = {"eager": "PyTorch", "onnx": "ONNX Runtime"}
#: Column of the table of runs -> what it holds; missing for runs without the file.
COLUMNS = {
    name: text
    for form, column in _FORMS.items()
    for name, text in (
        (f"{column}_ms", f"median time of a pass of the encoder over one sequence in {_WORDS[form]}, milliseconds"),
        (f"{column}_interval", f"95% interval of the median of {column} over the calls (list)"),
        (f"{column}_setting", f"length, machine and version of {column}: times compare only alike"),
    )
}


def columns(record: Mapping[str, Any]) -> dict[str, Any]:
    """The values of ``COLUMNS``, from the content of ``latency.json``; empty where there is none."""
    found: dict[str, Any] = dict.fromkeys(COLUMNS)
    for form, column in _FORMS.items():
        timing = _shown(record.get("timings") or (), form)
        if timing is not None:
            found[f"{column}_ms"] = timing["milliseconds"]
            found[f"{column}_interval"] = timing.get("interval")
            found[f"{column}_setting"] = _setting(record["machine"], timing)
    return found


def _shown(timings: Sequence[Mapping[str, Any]], form: str) -> Mapping[str, Any] | None:
    """The timing of one sequence with one thread whose length is nearest to ``LENGTH``, of two the shorter one."""
    alone = [one for one in timings if (one["form"], one["threads"], one["sequences"]) == (form, 1, 1)]
    return min(alone, key=lambda one: (abs(one["length"] - LENGTH), one["length"]), default=None)


def _setting(machine: Mapping[str, Any], timing: Mapping[str, Any]) -> str:
    """``1×128 tokens, 1 thread, fp32, AMD EPYC with 2 processors, PyTorch 2.13.0``."""
    version = machine["torch"] if timing["form"] == "eager" else machine.get("onnxruntime")
    where = f"{machine['cpu']} with {machine['processors']} processors"
    return f"1×{timing['length']} tokens, 1 thread, fp32, {where}, {_WORDS[timing['form']]} {version}"
