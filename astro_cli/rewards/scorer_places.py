"""Where the weights of HPSv3 and VideoAlign lie below the checkpoints folder, and the message where they are missing.

Free of torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from astro_cli.zoo.needs import NeededPart, fetch
from astro_cli.zoo.places import checkpoints_folder

HPSV3, HPSV3_BASE = "HPSv3/HPSv3.safetensors", "Qwen2-VL-7B-Instruct"
VIDEOALIGN, VIDEOALIGN_BASE = "VideoReward", "Qwen2-VL-2B-Instruct"
TEMPLATE_FILE = "prompt_template.py"
SETTINGS_FILE = "model_config.json"
TOKENIZER_FILE = "tokenizer.json"


def find(name: str) -> Path | None:
    """A file or folder `eval/<name>`, else `<name>`, below the checkpoints folder."""
    return next(
        (path for path in (checkpoints_folder() / "eval" / name, checkpoints_folder() / name) if path.exists()), None
    )


def target(name: str) -> Path:
    """Where to put it."""
    return checkpoints_folder() / "eval" / name


def videoalign_step(folder: Path) -> Path | None:
    """The newest `checkpoint-<step>` of a VideoAlign folder, as the official loader takes it."""
    steps = {
        int(path.name.split("-")[1]): path
        for path in folder.glob("checkpoint-*")
        if path.is_dir() and path.name.split("-")[1].isdigit()
    }
    return steps[max(steps)] if steps else None


def missing_hpsv3() -> str:
    """What HPSv3 lacks and where to put it; "" where it is all there."""
    lacks = [_lack(HPSV3, "HPSv3.safetensors of MizzenAI/HPSv3"), *_base_lacks(HPSV3_BASE, tokenizer=True)]
    return "; ".join(filter(None, lacks))


def missing_videoalign() -> str:
    """What VideoAlign lacks and where to put it; "" where it is all there."""
    folder = find(VIDEOALIGN)
    if folder is None:
        lacks = [_lack(VIDEOALIGN, f"the folder of KlingTeam/VideoReward ({SETTINGS_FILE}, checkpoint-*)")]
    else:
        step_lack = "" if videoalign_step(folder) else f"put checkpoint-* of KlingTeam/VideoReward into {folder}"
        template_lack = _file_lack(folder, TEMPLATE_FILE, "of the VideoAlign code repository")
        lacks = [_file_lack(folder, SETTINGS_FILE, "of KlingTeam/VideoReward"), template_lack, step_lack]
    step = folder and videoalign_step(folder)
    own_tokenizer = step is not None and (step / "tokenizer").is_dir()
    return "; ".join(filter(None, lacks + _base_lacks(VIDEOALIGN_BASE, tokenizer=not own_tokenizer)))


def needs(rewards: Iterable[str]) -> list[NeededPart]:
    """Networks that give Wan's training rewards: VQ is HPSv3's, MQ and TA are VideoAlign's."""
    wanted, parts, looked = set(rewards), [], f"below {checkpoints_folder() / 'eval'}"
    if "vq" in wanted:
        here = None if missing_hpsv3() else find(HPSV3)
        bring = [
            fetch("MizzenAI/HPSv3", ["HPSv3.safetensors"], target("HPSv3")),
            _base(HPSV3_BASE),
        ]
        parts.append(NeededPart("reward vq: HPSv3", here, looked, bring))
    if wanted & {"mq", "ta"}:
        here = None if missing_videoalign() else find(VIDEOALIGN)
        folder = target(VIDEOALIGN)
        bring = [
            fetch("KlingTeam/VideoReward", [], folder),
            _base(VIDEOALIGN_BASE),
            f"put {TEMPLATE_FILE} of the VideoAlign code repository into {folder}",
        ]
        parts.append(NeededPart("reward mq, ta: VideoAlign", here, looked, bring))
    return parts


def _lack(name: str, what: str) -> str:
    return "" if find(name) is not None else f"put {what} at {target(name)}"


def _file_lack(folder: Path, name: str, origin: str) -> str:
    return "" if (folder / name).is_file() else f"put {name} {origin} into {folder}"


def _base_lacks(name: str, *, tokenizer: bool) -> list[str]:
    """Sizes and words come from the base model's repository; of its weights only VideoAlign's adapter layout needs
    any.
    """
    files = ("config.json", *([TOKENIZER_FILE] if tokenizer else []))
    folder = find(name)
    if folder is None:
        return [f"put {' and '.join(files)} of Qwen/{name} into {target(name)}"]
    return [_file_lack(folder, file, f"of Qwen/{name}") for file in files]


def _base(name: str) -> str:
    files = ["config.json", TOKENIZER_FILE]
    return fetch(f"Qwen/{name}", files, target(name))
