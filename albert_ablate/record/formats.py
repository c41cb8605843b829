"""The number formats in which the heads of fine-tuned tasks compute their outputs."""

#: The format of all new fine-tunings.
HEADS = "fp32"
#: The format in older versions whose encoder computed in it.
BEFORE = "bf16"
#: A fine-tuning trained with its head in bf16 and scored again with the head in fp32.
REREAD = "fp32, trained in bf16"


def order(heads: str) -> tuple[int, str]:
    """Sort key of formats: the current one, then scored again, then older ones."""
    known = (HEADS, REREAD)
    return (known.index(heads) if heads in known else len(known)), heads


def suffix(heads: str) -> str:
    """Text after a score's name; empty if its head was trained in fp32."""
    return {HEADS: "", BEFORE: ", bf16 head", REREAD: ", head read again"}.get(heads, f", {heads} head")
