"""Where the weights of HPSv3 and VideoAlign lie, below the checkpoints folder or in the Hugging Face cache, and the
message where they are missing.

Free of torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from astro_cli.zoo import hub
from astro_cli.zoo.hub import HubId
from astro_cli.zoo.needs import NeededPart, looked_for
from astro_cli.zoo.places import checkpoints_folder

HPSV3, HPSV3_BASE = "HPSv3/HPSv3.safetensors", "Qwen2-VL-7B-Instruct"
VIDEOALIGN, VIDEOALIGN_BASE = "VideoReward", "Qwen2-VL-2B-Instruct"
TEMPLATE_FILE = "prompt_template.py"
SETTINGS_FILE = "model_config.json"
TOKENIZER_FILE = "tokenizer.json"
HUB = {
    HPSV3: HubId("MizzenAI/HPSv3", file="HPSv3.safetensors"),
    HPSV3_BASE: HubId(f"Qwen/{HPSV3_BASE}"),
    VIDEOALIGN: HubId("KlingTeam/VideoReward"),
    VIDEOALIGN_BASE: HubId(f"Qwen/{VIDEOALIGN_BASE}"),
}


def find(name: str) -> Path | None:
    """A file or folder `eval/<name>`, else `<name>`, below the checkpoints folder, else its place in the Hugging Face
    cache.
    """
    return next((path for path in _below(name) if path.exists()), None) or hub.cached(HUB[name])


def _below(name: str) -> tuple[Path, Path]:
    return checkpoints_folder() / "eval" / name, checkpoints_folder() / name


def find_videoalign() -> Path | None:
    """VideoAlign's folder: one that has its settings, before one that has only the code's template."""
    places = (*_below(VIDEOALIGN), hub.cached(HUB[VIDEOALIGN]))
    here = [place for place in places if place is not None and place.exists()]
    return next((place for place in here if (place / SETTINGS_FILE).is_file()), here[0] if here else None)


def videoalign_template(folder: Path) -> Path | None:
    """The code's template: in VideoAlign's folder, or where it belongs below the checkpoints folder."""
    return next((path for place in (folder, *_below(VIDEOALIGN)) if (path := place / TEMPLATE_FILE).is_file()), None)


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
    folder = find_videoalign()
    if folder is None:
        lacks = [_lack(VIDEOALIGN, f"the folder of KlingTeam/VideoReward ({SETTINGS_FILE}, checkpoint-*)")]
    else:
        step_lack = "" if videoalign_step(folder) else f"put checkpoint-* of KlingTeam/VideoReward into {folder}"
        template_lack = "" if videoalign_template(folder) else _template_lack()
        lacks = [_file_lack(folder, SETTINGS_FILE, "of KlingTeam/VideoReward"), template_lack, step_lack]
    step = folder and videoalign_step(folder)
    own_tokenizer = step is not None and (step / "tokenizer").is_dir()
    return "; ".join(filter(None, lacks + _base_lacks(VIDEOALIGN_BASE, tokenizer=not own_tokenizer)))


def needs(rewards: Iterable[str]) -> list[NeededPart]:
    """Networks that give Wan's training rewards: VQ is HPSv3's, MQ and TA are VideoAlign's."""
    wanted, parts, looked = set(rewards), [], looked_for("eval")
    if "vq" in wanted:
        here = None if missing_hpsv3() else find(HPSV3)
        bring = [hub.download_line(HUB[HPSV3]), _base(HPSV3_BASE)]
        parts.append(NeededPart("reward vq: HPSv3", here, looked, bring))
    if wanted & {"mq", "ta"}:
        here = None if missing_videoalign() else find_videoalign()
        bring = [hub.download_line(HUB[VIDEOALIGN]), _base(VIDEOALIGN_BASE), _template_lack()]
        parts.append(NeededPart("reward mq, ta: VideoAlign", here, looked, bring))
    return parts


def _lack(name: str, what: str) -> str:
    return "" if find(name) is not None else f"put {what} at {target(name)}"


def _template_lack() -> str:
    return f"put {TEMPLATE_FILE} of the VideoAlign code repository into {target(VIDEOALIGN)}"


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
    return hub.download_line(HUB[name], "config.json", TOKENIZER_FILE)
