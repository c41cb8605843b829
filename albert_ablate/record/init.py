"""``init.json``: the finished run that a run continues."""

from pydantic import Field

from albert_ablate.record.part import Part, Whole


class Pieces(Part):
    """The pieces of a tokenizer that is not that of the parent."""

    matched: Whole  # written like a piece of the parent, the special ones included
    new: Whole


class Init(Part):
    """The parent, and what became of the tensors of both."""

    from_: str = Field(alias="from")  # folder of the parent
    identity: str  # of the parent
    tensors_taken: list[str]
    tensors_new: list[str]  # initialised from the seed
    tensors_left: list[str]  # of the parent, without a place here
    tensors_repeated: list[str] | None = None  # tables of positions that had fewer rows there
    tensors_cut: list[str] | None = None  # tables of positions that had more rows there
    tensors_copied: list[str] | None = None  # of blocks that begin with a block of another number
    pieces: Pieces | None = None  # with another tokenizer
