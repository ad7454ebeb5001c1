"""What a Ray call raised becomes an error that names the worker."""

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'astro-cli[ray]'")

from ray.exceptions import ActorDiedError, OutOfMemoryError, RayTaskError  # noqa: E402

from astro_cli.config.errors import CheckpointError, RunError  # noqa: E402
from astro_cli.execution.failures import explained, is_own_end  # noqa: E402


def raised(cause: Exception) -> RayTaskError:
    return RayTaskError("work", "Traceback ...", cause)


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("killed by the memory monitor"),
        raised(MemoryError()),
        raised(
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
        ),
        raised(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")),
    ],
)
def test_a_worker_out_of_memory_is_named(error):
    shown = explained(error, "reward-vq-0")
    assert isinstance(shown, RunError)
    assert str(shown).startswith("error: worker reward-vq-0: out of memory")
    assert "--resume" in shown.hint


def test_a_killed_worker_is_named_and_counts_as_the_cause():
    shown = explained(ActorDiedError(), "rollout-1")
    assert str(shown).startswith("error: worker rollout-1: was killed or crashed")
    assert is_own_end(ActorDiedError())
    assert not is_own_end(raised(RuntimeError("Connection closed by peer")))


def test_a_users_error_travels_as_it_is_and_a_bug_with_its_traceback():
    lacking = CheckpointError("weights", "student", "missing", hint="bring them")
    assert explained(raised(lacking), "update-0") is lacking
    bug = raised(ValueError("boom"))
    assert explained(bug, "update-0") is bug
