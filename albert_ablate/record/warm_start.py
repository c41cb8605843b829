"""``warm_start.json``: the run that a run started from."""

from pydantic import Field

from albert_ablate.record.part import Part


class WarmStart(Part):
    """A shallower run, and what it could not give."""

    from_: str = Field(alias="from")  # folder of that run
    tensors_of_its_own: list[str]  # that the shallower run does not have
