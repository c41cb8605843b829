"""The number formats in which the heads of fine-tuned tasks answer (``heads`` computes in it)."""

#: Of all fine-tunings that are trained now.
HEADS = "fp32"
#: Of older versions, where the encoder computed in it.
BEFORE = "bf16"
#: Of a fine-tuning that was trained with its head in bf16 and scored again with it in fp32.
REREAD = "fp32, trained in bf16"


def order(answered: str) -> tuple[int, str]:
    """What sorts formats: that of now, of those scored again, of before."""
    known = (HEADS, REREAD)
    return (known.index(answered) if answered in known else len(known)), answered


def words(answered: str) -> str:
    """What stands behind a score's name: nothing where its head answered in fp32 from the start."""
    return {HEADS: "", BEFORE: ", bf16 head", REREAD: ", head read again"}.get(answered, f", {answered} head")
