"""``latency.json``: how long the encoder of a run takes for a pass, as ``benchmarks.latency --record`` measured it."""

from albert_ablate.record.part import Interval, Number, Part, Whole

LATENCY = "latency.json"


class Processor(Part):
    """Where it was measured. Times of two machines, or of two versions, are not compared."""

    cpu: str
    processors: Whole
    torch: str
    onnxruntime: str | None = None  # version; None: not used


class Timing(Part):
    """Passes over equally many sequences of one length, without padding, in fp32."""

    form: str  # eager, onnx, int8
    threads: Whole
    sequences: Whole  # of a pass
    length: Whole  # tokens of a sequence
    milliseconds: Number  # median
    interval: Interval | None = None  # 95%, of the median
    p90: Number | None = None  # milliseconds
    calls: Whole | None = None
    megabytes: Number | None = None  # peak memory of one sequence of this length, weights included


class Latency(Part):
    """All timings of one measurement."""

    machine: Processor
    taken: str  # time of its end, with its zone
    timings: list[Timing]
