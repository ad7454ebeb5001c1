"""What a Ray call raised, as an error that names the worker."""

from __future__ import annotations

from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError, WorkerCrashedError

from astro_cli.config.errors import AstroError, RunError, is_out_of_memory

HINT = "the run can be resumed from its last checkpoint: --resume"


def explained(error: RayError, worker: str) -> BaseException:
    """The error to raise in the place of Ray's: a user's own error as it is, an end of the worker by its name, and a
    bug as Ray shows it, with the worker's traceback.
    """
    where = f"worker {worker}"
    if isinstance(error, OutOfMemoryError):
        return RunError(where, "", "out of memory: ended to keep its machine alive", hint=HINT)
    if isinstance(error, RayTaskError):
        cause = error.cause
        if isinstance(cause, AstroError):
            return cause
        if isinstance(cause, BaseException) and is_out_of_memory(cause):
            reason = str(cause).partition("\n")[0]
            return RunError(where, "", f"out of memory{reason and ': ' + reason}", hint=HINT)
        if isinstance(cause, RayError):
            return explained(cause, worker)
        return error
    if isinstance(error, RayActorError | WorkerCrashedError):
        return RunError(where, "", "was killed or crashed, and could not be started again", hint=HINT)
    return RunError(where, "", str(error).partition("\n")[0] or type(error).__name__, hint=HINT)


def is_own_end(error: RayError) -> bool:
    """Whether the worker itself ended, where others may fail in its wake."""
    return isinstance(error, RayActorError | WorkerCrashedError | OutOfMemoryError)
