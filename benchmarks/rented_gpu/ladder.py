"""The cells that a measured speed allows: tokens a second -> blocks -> cells in the order in which they run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.rented_gpu.sizes import Size, budget

Overrides = tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """Arms that are compared with each other, with equal tokens and several seeds."""

    name: str
    arms: tuple[Overrides, ...]
    seeds: tuple[int, ...]
    tokens: float  # of a cell
    fine_tuned: bool = False

    @property
    def total(self) -> float:
        """Tokens of all its cells."""
        return len(self.arms) * len(self.seeds) * self.tokens


@dataclass(frozen=True)
class Job:
    """One cell: pretraining, or the fine-tunings of a cell whose pretraining is finished."""

    name: str
    overrides: Overrides
    tokens: float  # trained on
    tuning: bool = False


_SEEDS = (0, 1, 2)
OBJECTIVES = Block(
    "Table 5",
    tuple(("embed=e32", "share=all", f"objective={name}") for name in ("none", "nsp", "sop")),
    _SEEDS,
    120e6,
    fine_tuned=True,
)
SHARING = Block(
    "Table 4, E = H/6",
    tuple(("embed=e32", f"share={name}", "objective=sop") for name in ("attention", "ffn", "none", "all")),
    _SEEDS,
    30e6,
)
EMBEDDING = Block(
    "Table 3",
    tuple((f"embed={e}", f"share={s}", "objective=sop") for e in ("e16", "e64", "full") for s in ("all", "none")),
    _SEEDS,
    30e6,
)
SHARING_AT_FULL_WIDTH = Block(
    "Table 4, E = H", tuple(("embed=full", f"share={s}", "objective=sop") for s in ("attention", "ffn")), _SEEDS, 30e6
)
_SHORT = (SHARING, EMBEDDING, SHARING_AT_FULL_WIDTH)


def _two_seeds(block: Block) -> Block:
    return replace(block, seeds=_SEEDS[:2])


#: Smallest speed, in tokens a second over all processes, and the blocks to run at it.
LADDER: tuple[tuple[float, tuple[Block, ...]], ...] = (
    (7.5e6, (OBJECTIVES, *_SHORT)),
    (5e6, (replace(OBJECTIVES, tokens=80e6), *map(_two_seeds, _SHORT))),
    (3e6, (replace(OBJECTIVES, tokens=60e6), _two_seeds(SHARING))),
    (1.5e6, (replace(OBJECTIVES, tokens=45e6),)),
    (0.9e6, (replace(OBJECTIVES, tokens=28e6),)),
)


def blocks(tokens_per_second: float) -> tuple[Block, ...]:
    """The blocks to run at this speed over all processes; empty if it is too slow for one table."""
    return next((chosen for least, chosen in LADDER if tokens_per_second >= least), ())


def jobs(chosen: Sequence[Block], size: Size, learning_rate: float) -> list[Job]:
    """The cells, block by block and within a block seed by seed, so that an early end leaves whole seeds."""
    made = []
    for block in chosen:
        tokens = block.tokens * size.tokens
        for seed in block.seeds:
            for arm in block.arms:
                overrides = (*size.model, *arm, f"seed={seed}", f"optimizer.learning_rate={learning_rate}")
                name = f"{block.name}: {' '.join(arm)} seed={seed}"
                made.append(Job(name, (*overrides, *budget(tokens, size)), tokens))
    return made


def tunings(chosen: Sequence[Block], size: Size, learning_rate: float, tasks: str) -> list[Job]:
    """The fine-tunings of the cells in blocks with ``fine_tuned``, in the same order."""
    more = (*size.tuning, f"task.data_dir={tasks}")
    long = jobs([block for block in chosen if block.fine_tuned], size, learning_rate)
    return [Job(f"{job.name}, tasks", (*job.overrides, *more), 0, tuning=True) for job in long]
