"""What a measured speed has time for: tokens a second -> blocks -> cells in the order in which they run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.rented_gpu.sizes import Size, budget

Words = tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """Arms that are compared with each other: equal tokens, several seeds."""

    name: str
    arms: tuple[Words, ...]
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
    words: Words
    tokens: float  # that it trains on
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


#: Tokens a second, over all processes, from which on these blocks are run.
LADDER: tuple[tuple[float, tuple[Block, ...]], ...] = (
    (7.5e6, (OBJECTIVES, *_SHORT)),
    (5e6, (replace(OBJECTIVES, tokens=80e6), *map(_two_seeds, _SHORT))),
    (3e6, (replace(OBJECTIVES, tokens=60e6), _two_seeds(SHARING))),
    (1.5e6, (replace(OBJECTIVES, tokens=45e6),)),
    (0.9e6, (replace(OBJECTIVES, tokens=28e6),)),
)


def blocks(tokens_per_second: float) -> tuple[Block, ...]:
    """What to run at that speed, over all processes; nothing where it is too slow for one table."""
    return next((chosen for least, chosen in LADDER if tokens_per_second >= least), ())


def jobs(chosen: Sequence[Block], size: Size, learning_rate: float) -> list[Job]:
    """The cells, block by block and within a block seed by seed, so that a cut leaves whole seeds."""
    found = []
    for block in chosen:
        tokens = block.tokens * size.tokens
        for seed in block.seeds:
            for arm in block.arms:
                words = (*size.model, *arm, f"seed={seed}", f"optimizer.learning_rate={learning_rate}")
                name = f"{block.name}: {' '.join(arm)} seed={seed}"
                found.append(Job(name, (*words, *budget(tokens, size)), tokens))
    return found


def tunings(chosen: Sequence[Block], size: Size, learning_rate: float, tasks: str) -> list[Job]:
    """The fine-tunings of the cells of those blocks that are fine-tuned, in the same order."""
    more = (*size.tuning, f"task.data_dir={tasks}")
    long = jobs([block for block in chosen if block.fine_tuned], size, learning_rate)
    return [Job(f"{job.name}, tasks", (*job.words, *more), 0, tuning=True) for job in long]
