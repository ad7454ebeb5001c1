"""Every reader of files that a user gives: a small good file, and the call that reads it. A table for tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from astro_cli.config import toml
from astro_cli.generate import card
from astro_cli.generate.plan import stories
from astro_cli.media.clips import list_clips
from astro_cli.models import (
    hashes,
    importing,
    lora_files,
    merged,
    network_files,
    parts,
    tensor_files,
    tokenizer_files,
    verify,
    weights,
)
from astro_cli.models.wan import relatives, sizes
from astro_cli.recipe import load_recipe
from astro_cli.rewards import scorer_places, templates, videoalign_files
from astro_cli.rollout.recording import read_recording
from astro_cli.training import aligned_student, checkpoints
from astro_cli.training.rundir import RunDir
from astro_cli.training.sequences import read_pairs
from astro_cli.training.sources import read_prompts
from astro_cli.zoo.places import release_of
from eval.human import gsb, likert, rank
from eval.inputs import sidecars
from eval.inputs.manifest import list_manifest
from eval.prompt_sets.catalog import prompt_set
from eval.records import store
from eval.records.video_scores import SampleStore
from eval.report import curves, figures
from eval.studies.grid_run import core_seconds
from eval.vbench import result_files, slow_fast
from eval.watchers import flow_reference
from eval.watchers.sidecar import sidecar

PACKAGED = Path(weights.PACKAGED)
CARD = json.loads((PACKAGED / "shapes" / "causal_forcing.json").read_text())
CONFIG = json.dumps(
    {"dim": 24, "num_heads": 2, "ffn_dim": 40, "num_layers": 1, "in_dim": 4, "freq_dim": 8, "eps": 1e-6}
)
DIFFUSERS = json.dumps({
    "_class_name": "WanTransformer3DModel", "patch_size": [1, 2, 2], "num_attention_heads": 2, "attention_head_dim": 12,
    "in_channels": 4, "text_dim": 6, "freq_dim": 8, "ffn_dim": 40, "num_layers": 1, "eps": 1e-6,
})  # fmt: skip
ENVIRONMENT = {"commit": "abcdef0", "dirty": False, "device": "cpu", "versions": {"torch": "2"}, "seed": 0}
RECIPE = load_recipe("astrolabe_causal_shapes")
ROW = {"stage": RECIPE.order[0], "step": 0, "reward/total": 0.5, "student/x0_norm": 1.0, "memory/saved_bytes": 10}
RECORD = store.Record(
    benchmark="shapes", backbone="shapes", arm="a", seed=0, metric="vq", direction="up", scores=[0.5, None],
    recipe_hash="r", weights_hash="w", prompt_set_hash="p", protocol={"fps": 8, "limit": None}, commit="c", dirty=False,
).model_dump()  # fmt: skip
LINE = {
    "schema_version": 1, "video": "a.mp4", "video_hash": "v", "prompt_id": "p", "prompt_hash": "h", "seed": 0,
    "scorer": "s", "config_hash": "c", "weights_hash": "w", "decoder": "av", "scores": {"s": 0.5}, "details": {},
    "created": "2026-01-01T00:00:00+00:00",
}  # fmt: skip
RESULTS = {"dynamic_degree": [1.0, [{"video_path": "/a/a cat-0.mp4", "video_results": True}]]}
TEMPLATE = f'{templates.VIDEOALIGN_NAME} = "{templates.BLANK} {" ".join(templates.VIDEOALIGN_TOKENS)}"\n'
RESOLVED = {"hash": RECIPE.hash(), "recipe": RECIPE.model_dump(mode="json")}
STAGES = {name: {"steps": stage.steps} for name, stage in RECIPE.stages.items()}
READ = {"name": "a", "seed": 0, "backbone": "shapes", "order": list(RECIPE.order), "stages": STAGES}
RUN = {"hash": "0" * 16, "recipe": READ}  # what a report reads of it
TENSORS = {"a": torch.zeros(2, 3)}
TOKENIZER = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"},
}  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """A reader.

    Attributes:
        name: of the test.
        file: the name of the file it reads, in an empty folder.
        good: what a whole file holds.
        read: reads the file at a path; raises an AstroError.
        beside: writes the other files that it needs.
        passes: it takes a damaged file for none, and raises nothing.
    """

    name: str
    file: str
    good: bytes
    read: Callable[[Path], Any]
    beside: Callable[[Path], object] = lambda path: None
    passes: bool = False

    @property
    def kind(self) -> str:
        """Of the file: json, jsonl, toml, csv, txt, safetensors, ..."""
        return self.file.rpartition(".")[2]


def _text(name: str, file: str, good: str, read: Callable[[Path], Any], **more: Any) -> Reader:
    return Reader(name, file, good.encode(), read, **more)


def _json(name: str, file: str, good: Any, read: Callable[[Path], Any], **more: Any) -> Reader:
    return _text(name, file, good if isinstance(good, str) else json.dumps(good), read, **more)


def _lines(name: str, file: str, good: Any, read: Callable[[Path], Any], **more: Any) -> Reader:
    """Of two lines, so that the first cannot be taken for an unfinished last one."""
    return _text(name, file, f"{json.dumps(good)}\n{json.dumps(good)}\n", read, **more)


def _imported(path: Path) -> object:
    return importing._same(path.parent, dict.fromkeys(importing.OWN_KEYS, 1))


def _settings(path: Path) -> object:
    return videoalign_files.read_settings(path.parent)


def _recipe(path: Path) -> object:
    return load_recipe(str(path))


def _student(path: Path) -> object:
    recipe = RECIPE.model_copy(
        update={"base": RECIPE.base.model_copy(update={"student": str(path.with_suffix(".safetensors"))})}
    )
    return aligned_student.check_student(recipe)


def _finding(path: Path) -> object:
    """A manifest's faults are findings; the first is raised as the error it becomes."""
    for finding in list_manifest(path.parent, None).findings:
        raise sidecars.InputError(path, finding.key, finding.what, hint=finding.hint)
    return None


def _sidecar_finding(path: Path) -> object:
    for finding in sidecars.list_sidecars(path.parent, [path.with_suffix(".mp4")], None).findings:
        raise sidecars.InputError(path, finding.key, finding.what, hint=finding.hint)
    return None


def _flows(path: Path) -> object:
    sample: Any = SimpleNamespace(path=path.with_name("a.mp4"), info=SimpleNamespace(frames=3, height=2, width=2))
    return list(flow_reference._stored(path, sample, 2))


def _npy() -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, np.zeros((2, 2, 2, 2), np.float32))
    return buffer.getvalue()


def _pickle() -> bytes:
    import io

    buffer = io.BytesIO()
    torch.save(TENSORS, buffer)
    return buffer.getvalue()


def _run(path: Path) -> None:
    """The other files of a run's folder."""
    final = path.parent / "final"
    final.mkdir(exist_ok=True)
    for file, data in {"resolved.json": RUN, "environment.json": ENVIRONMENT, "final/student.json": CARD}.items():
        if path.name != Path(file).name:
            (path.parent / file).write_text(json.dumps(data))
    (final / "student.safetensors").write_bytes(save(TENSORS))
    if path.name != "metrics.jsonl":
        (path.parent / "metrics.jsonl").write_text(json.dumps(ROW) + "\n")


def _lora(path: Path) -> None:
    tensors = {
        "base_model.model.blocks.0.attn1.to_q.lora_A.weight": torch.zeros(2, 4),
        "base_model.model.blocks.0.attn1.to_q.lora_B.weight": torch.zeros(4, 2),
    }
    (path.parent / "adapter_model.safetensors").write_bytes(save(tensors))


def _resumed(path: Path) -> None:
    """The rows a run keeps are those before the damage."""
    if (count := checkpoints.whole_rows(path)) != 2:
        raise checkpoints.CheckpointError(path, "", f"{count} whole rows")


def readers() -> Iterator[Reader]:
    yield _json("card", "w.json", CARD, lambda path: card.of_weights(path.with_suffix(".safetensors")))
    yield _json(
        "card of a student", "w.json", CARD, _student, beside=lambda path: path.with_suffix(".safetensors").touch()
    )
    yield _json("run's identity", "resolved.json", RUN, lambda path: RunDir(path.parent).identity())
    yield _json("run's recipe", "resolved.json", RESOLVED, lambda path: RunDir(path.parent).recipe())
    yield _json("recording", "r.json", {
        "model": {"dim": 24, "ffn_dim": 4, "num_heads": 2, "num_layers": 1, "in_dim": 4, "text_dim": 6, "text_len": 5},
        "weights": "w.safetensors", "frames_per_block": 3, "cases": {"a": {"kind": "cache"}},
    }, read_recording, beside=lambda path: path.with_suffix(".safetensors").write_bytes(save(TENSORS)))  # fmt: skip
    yield _json(
        "reward's settings",
        scorer_places.SETTINGS_FILE,
        {"data_config": {"fps": 2.0}, "inference_config": {}},
        _settings,
    )
    yield _json(
        "release's manifest",
        "manifest.json",
        {"entry": "longlive"},
        lambda path: release_of("x", path.with_name("x.safetensors")),
    )
    yield _json("part's config", "config.json", {"_class_name": "UMT5"}, lambda path: parts.config(path.parent, "umt5"))
    yield _json("original config", "config.json", CONFIG, sizes.declared)
    yield _json("diffusers config", "config.json", DIFFUSERS, sizes.declared)
    yield _json("model in a card", "w.json", {"model": CARD["model"]}, sizes.declared)
    yield _json("import's manifest", "manifest.json", {
        "config": CARD["model"], "dtype": ["float32"], "tensors": 1,
        "written": [{"name": "a", "bytes": 1, "sha256": "0"}],
    }, lambda path: verify.read_manifest(path.parent))  # fmt: skip
    yield _json(
        "import's adapters",
        "manifest.json",
        {"loras": [], "lora_contents": [], "earlier_loras": []},
        merged._of_manifest,
    )
    yield _json(
        "pipeline's index",
        "model_index.json",
        {"boundary_ratio": None},
        relatives._index,
        passes=True,
    )
    yield _json(
        "import that is there", "manifest.json", dict.fromkeys(importing.OWN_KEYS, 1) | {"written": []}, _imported
    )
    yield _json(
        "adapter's config",
        "adapter_config.json",
        {"r": 2, "lora_alpha": 4.0, "alpha_pattern": {"to_q": 8}},
        lambda path: lora_files.read_lora(path.parent),
        beside=_lora,
    )
    yield _json(
        "shard index",
        "m.safetensors.index.json",
        {"weight_map": {"a": "s.safetensors"}},
        tensor_files.open_file,
        beside=lambda path: path.with_name("s.safetensors").write_bytes(save(TENSORS)),
    )
    yield _json(
        "remembered hashes", "digests.json", [["/a", 1, 2, 3, "0" * 64]], lambda path: hashes._load(), passes=True
    )
    yield _json("tokenizer", "tokenizer.json", TOKENIZER, lambda path: tokenizer_files.load(path.parent, "copy it"))
    yield _json(
        "training's environment",
        "environment.json",
        ENVIRONMENT,
        lambda path: curves.read_run(path.parent, "shapes"),
        beside=_run,
    )
    yield _json(
        "training's recipe", "resolved.json", RUN, lambda path: curves.read_run(path.parent, "shapes"), beside=_run
    )
    yield _json("sidecar", "a.json", {"prompt": "a cat", "seed": 0, "switches": []}, _sidecar_finding)
    yield _json(
        "scorer's sidecar",
        "a.json",
        {"frames_per_second": 8},
        lambda path: sidecar(SimpleNamespace(path=path.with_suffix(".mp4"))),
        passes=True,
    )  # type: ignore[arg-type]
    yield _json("official results", "x_eval_results.json", RESULTS, result_files.read)
    yield _json("official list", "x_full_info.json", [{"dimension": ["color"], "video_list": []}],
                lambda path: result_files.read(path.with_name("x_eval_results.json")),
                beside=lambda path: path.with_name("x_eval_results.json").write_text(
                    json.dumps({"color": RESULTS["dynamic_degree"]})))  # fmt: skip
    yield _lines("records", "shapes.jsonl", RECORD, lambda path: store.load([path]))
    yield _lines("scores of videos", "s.jsonl", LINE, _sample_store)
    yield _lines("metrics", "metrics.jsonl", ROW, figures.read_metrics)
    yield _lines(
        "metrics of a run",
        "metrics.jsonl",
        ROW,
        lambda path: curves.read_run(path.parent, "shapes").stages,
        beside=_run,
    )
    yield _lines("metrics that a run resumes", "metrics.jsonl", ROW, _resumed)
    yield _lines(
        "seconds of a grid",
        "seconds.jsonl",
        {"job": "a-seed-0", "what": "train", "seconds": 1.0},
        lambda path: core_seconds(path.parent),
    )
    yield _lines(
        "clips",
        "clips.jsonl",
        {"video": "a.mp4", "prompt": "a"},
        list_clips,
        beside=lambda path: path.with_name("a.mp4").touch(),
    )
    videos = [{"video": "a.mp4", "prompt": prompt, "switches": [[4, "b"]]} for prompt in ("a", "c")]
    yield _text(
        "videos",
        "manifest.jsonl",
        "".join(f"{json.dumps(line)}\n" for line in videos),
        _finding,
        beside=lambda path: path.with_name("a.mp4").touch(),
    )
    yield _lines("scripts", "p.jsonl", {"prompts": ["a", "b"]}, lambda path: stories(None, path, ()))
    yield _lines("prompt set of scripts", "p.jsonl", {"prompts": ["a", "b"]}, prompt_set)
    yield _text("prompts", "p.txt", "a cat\na dog\n", lambda path: stories(None, path, ()))
    yield _text("table of prompts", "p.csv", "id,prompt\n1,a cat\n", lambda path: stories(None, path, ()))
    yield _text("prompt set", "p.txt", "a cat\na dog\n", prompt_set)
    yield _text("training prompts", "p.txt", "a cat\na dog\n", read_prompts)
    yield _lines("prompts that switch", "p.jsonl", {"prompts": ["a cat", "a dog"]}, read_pairs)
    yield _text("reward's template", "prompt_template.py", TEMPLATE, templates.videoalign_template)
    yield _text("recipe", "mine.toml", 'extends = "astrolabe_causal_shapes"\nname = "mine"\nseed = 1\n', _recipe)
    yield _text(
        "merged recipe",
        "mine.toml",
        'extends = "astrolabe_causal_shapes"\nname = "mine"\n',
        lambda path: toml.load(str(path)),
    )
    yield _text("mapping table", "t.yaml", "".join(f"{i / 100}: {i / 100}\n" for i in range(101)), slow_fast.read_table)
    yield _text("pairwise judgements", "g.csv", "criterion,verdict\nq,G\n", gsb.read)
    yield _text("ratings", "l.csv", "criterion,score\nq,3\n", lambda path: likert.read(path, (1, 5)))
    yield _text("ranks", "r.csv", "item,arm,rank\n1,a,1\n1,b,2\n", rank.read)
    yield _lines("answers of a human study", "g.jsonl", {"verdict": "G", "arm": "a", "other": "b"}, gsb.read)
    yield Reader("tensors", "w.safetensors", save(TENSORS), weights.read)
    yield Reader("lazy tensors", "w.safetensors", save(TENSORS), tensor_files.open_file)
    yield Reader("pickled tensors", "w.pt", _pickle(), tensor_files.open_file)
    yield Reader("scorer's tensors", "w.pt", _pickle(), network_files.read)
    yield Reader("scorer's safetensors", "w.safetensors", save(TENSORS), network_files.read)
    yield Reader("flows", "f.npy", _npy(), _flows)


def _sample_store(path: Path) -> object:
    folder = path.parent / "samples" / "suite"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / path.name).is_symlink():
        (folder / path.name).symlink_to(path)
    return SampleStore(path.parent, "suite").load(["s"])


READERS = tuple(readers())
