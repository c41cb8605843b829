"""``warm_start.json``: the run that a run started from."""

from pydantic import Field

from albert_ablate.record.part import Part


class WarmStart(Part):
    """The shallower run, or the one on shorter sequences, and the tensors that differ."""

    from_: str = Field(alias="from")  # folder of that run
    tensors_of_its_own: list[str]  # initialised anew
    tensors_repeated: list[str] | None = None  # tables of positions that had fewer rows there
