"""The sizes that ``--tiny`` reduces: models, numbers of tokens, seconds."""

from dataclasses import dataclass, field

from benchmarks.cases import Case

#: Checkpoints are written only at the end of a run: on a rented machine no run is continued later.
_SAVED_ONCE = ("runtime.checkpoint_every=1000000", "runtime.checkpoint_minutes=null", "runtime.keep_checkpoints=1")


@dataclass(frozen=True)
class Size:
    """The sizes of the campaign, or of a rehearsal."""

    device: str
    model: tuple[str, ...]  # settings of every cell, without data, arm, seed, rate and budget
    larger: tuple[str, ...]  # changes to ``model`` that give the second model whose speed is measured
    batch_tokens: int  # positions of a step, padding included
    tokens: float  # factor on the tokens of ``ladder``
    assumed: float | None  # speed to choose the blocks by, instead of the measured one
    check_fraction: float  # share of the documents, for checks that need few steps
    peers: tuple[Case, ...]  # cases compared with transformers, in this order
    compiled: bool  # whether transformers is compiled
    gemm: int  # width of the product that measures the machine's rate
    backends: tuple[str, ...]  # values of runtime.backend; the others are compared with the first
    golden: tuple[str, ...]  # cells of tests/golden
    seconds: float  # of each measurement
    first: float  # seconds of ``first``
    campaign: float  # seconds of ``campaign``
    pilot: float  # seconds of each run of the pilot
    pack_every: float  # seconds
    tuning: tuple[str, ...] = field(default=())  # settings of the fine-tunings


FULL = Size(
    device="cuda",
    model=(
        "scale=cpu", "model.name=nano6", "model.layers=6", "pairs.max_length=128", "tokenizer.vocab_size=8000",
        "evaluation.curve_pairs=512", "runtime.device=cuda", "runtime.precision=bf16", "runtime.workers=2",
        "runtime.threads=4", "runtime.log_every=100", *_SAVED_ONCE,
    ),
    larger=("model.name=mini6", "model.hidden=384", "model.heads=6", "model.intermediate=1536", "embed.size=64"),
    batch_tokens=64 * 128,
    tokens=1.0,
    assumed=None,
    check_fraction=0.02,
    peers=tuple(
        Case(f"{name} {b} x {t}", h=h, layers=layers, e=128, v=30000, b=b, t=t, device="cuda")
        for name, h, layers, b, t in (
            ("base", 768, 12, 256, 128), ("base", 768, 12, 64, 512), ("large", 1024, 24, 256, 128)
        )
    ),
    compiled=True,
    gemm=8192,
    backends=("eager", "compiled", "graph"),
    golden=("e32-all-sop", "e32-attention-nsp", "e32-ffn-none", "e32-none-sop", "full-all-nsp", "full-none-none"),
    seconds=2,
    first=225,
    campaign=470,
    pilot=20,
    pack_every=60,
    tuning=(
        "task=[mnli,sst2,squad11]", "task.evaluations=3", "task.keep_weights=false", "task.scaling.epochs=1",
        "task.scaling.batch_size=128", "task.scaling.max_length=384", "tasks.mnli.epochs=2", "tasks.sst2.epochs=1",
        "tasks.squad11.epochs=1",
    ),
)  # fmt: skip

TINY = Size(
    device="cpu",
    model=(
        "scale=cpu", "model.name=tiny1", "model.layers=1", "pairs.max_length=32", "batch.size=8", "batch.micro_size=8",
        "tokenizer.vocab_size=200", "evaluation.max_pairs=32", "evaluation.curve_pairs=16",
        "evaluation.probe_pairs=32", "evaluation.similarity_pairs=8", "runtime.device=cpu", "runtime.precision=fp32",
        "runtime.threads=1", "runtime.log_every=2", *_SAVED_ONCE,
    ),
    larger=("model.name=tiny2", "model.layers=2"),
    batch_tokens=8 * 32,
    tokens=2e-5,
    assumed=2e6,
    check_fraction=1.0,
    peers=(Case("tiny 4 x 32", h=64, layers=2, e=16, v=200, b=4, t=32),),
    compiled=False,
    gemm=256,
    backends=("auto",),
    golden=("e32-all-sop",),
    seconds=0.2,
    first=225,
    campaign=240,
    pilot=0.2,
    pack_every=5,
    tuning=("task=[sst2]", "task.evaluations=1", "task.keep_weights=false", "tasks.sst2.max_train=32"),
)  # fmt: skip


def backend_overrides(backend: str) -> tuple[str, ...]:
    """Settings of a run with this backend; none for ``auto``, the only value on a CPU."""
    return () if backend == "auto" else (f"runtime.backend={backend}",)


def size_of(tiny: bool) -> Size:
    """``TINY`` or ``FULL``."""
    return TINY if tiny else FULL


def budget(tokens: float, size: Size) -> tuple[str, ...]:
    """Settings of a run of so many tokens without padding: 5% of the steps warm-up, twenty curve points."""
    steps = max(round(tokens / size.batch_tokens), 4)
    twentieth = max(steps // 20, 1)
    return (
        "budget=tokens", f"budget.tokens={round(tokens)}", f"budget.steps={steps}",
        f"budget.warmup_steps={twentieth}", f"evaluation.curve_every={twentieth}",
    )  # fmt: skip
