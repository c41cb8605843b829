"""Whatever ends a run or a fine-tuning early becomes its recorded status, and words."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from albert_ablate.errors import MemoryExhaustedError, PreemptedError, UserError
from albert_ablate.runs import RunFolder


@contextmanager
def recorded(folder: RunFolder, out_of_memory: str) -> Iterator[None]:
    """Run the body; its failure becomes the folder's status and a UserError.

    ``out_of_memory`` is what to say where memory ran out.
    """
    try:
        yield
    except PreemptedError as stop:
        folder.set_status("preempted", str(stop))
        raise
    except UserError as error:
        folder.set_status("failed", str(error), error.exit_code)
        raise
    except KeyboardInterrupt:
        folder.set_status("preempted", "interrupted")
        raise PreemptedError("Interrupted; the same command continues from the last checkpoint.") from None
    except (Exception, SystemExit) as error:
        folder.log(traceback.format_exc())
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            exhausted = MemoryExhaustedError(out_of_memory)
            folder.set_status("failed", str(exhausted), exhausted.exit_code)
            raise exhausted from error
        what = f"exit({error.code}) was called" if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
        folder.set_status("failed", what, UserError.exit_code)
        raise UserError(f"{folder.name} failed: {what}\nDetails: {folder.path}/log.txt") from error
