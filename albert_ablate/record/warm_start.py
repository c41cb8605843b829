"""``warm_start.json``: the run that a run started from."""

from pydantic import Field

from albert_ablate.record.part import Part


class WarmStart(Part):
    """The shallower run, and the tensors that it lacks."""

    from_: str = Field(alias="from")  # folder of that run
    tensors_of_its_own: list[str]  # initialised anew
