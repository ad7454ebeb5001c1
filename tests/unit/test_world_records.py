"""Which records of an evaluation in the embedded world are taken again."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from astro_cli.generate.arm import load_arm
from astro_cli.models import weights
from eval.records import store
from eval.world.run import evaluate_arm


@pytest.fixture
def evaluate(tmp_path):
    """Scores an arm by a suite that costs nothing; how often it has been scored so far."""
    scored = []
    benchmark = SimpleNamespace(
        NAME="shapes", VERSION=1, METRICS=("vq",), prompt_set=lambda count: ["a"] * count,
        num_frames=lambda arm: 9, protocol=lambda arm: {},
        evaluate=lambda arm, seed, prompts, progress: scored.append(arm.name) or {"vq": [0.5]},
    )  # fmt: skip
    suite = SimpleNamespace(name="shapes", load=lambda: benchmark)

    def count(arm) -> int:
        evaluate_arm(arm, 0, 1, tmp_path / "results", lambda *_: None, suite)
        return len(scored)

    return count


def test_scores_through_another_codec_are_not_taken_for_these(evaluate, tmp_path):
    arm, codec = load_arm("shapes/self_forcing"), tmp_path / "codec.safetensors"
    assert [evaluate(arm), evaluate(arm)] == [1, 1]
    shutil.copyfile(weights.find("shapes/codec", "codec"), codec)
    other = replace(arm, card={**arm.card, "codec": str(codec)})
    assert evaluate(other) == 1  # the same content elsewhere
    data = bytearray(codec.read_bytes())
    data[-1] ^= 1
    codec.write_bytes(data)
    assert [evaluate(other), evaluate(other)] == [2, 2]


def test_a_record_dated_in_the_future_is_replaced_once(evaluate, tmp_path):
    arm = load_arm("shapes/self_forcing")
    evaluate(arm)
    path = store.record_path(tmp_path / "results", "shapes")
    [record] = store.load([path])
    path.unlink()
    ahead = {"created": "2099-01-01T00:00:00+00:00", "weights_hash": "f" * 16}
    store.append(path, record.model_copy(update=ahead))
    assert [evaluate(arm), evaluate(arm), evaluate(arm)] == [2, 2, 2]
    assert len(store.load([path])) == 2
