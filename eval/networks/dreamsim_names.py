"""DreamSim's released files and where they lie. Free of torch.

The ensemble's archive (dreamsim_ensemble_checkpoint.zip of release v0.2.0-checkpoints) holds the folder as it is here.
From its dino_vitb16_pretrain.pth the package takes DINO's head, which the ensemble does not use: DINO's backbone is
facebookresearch's own file.
"""

from __future__ import annotations

from pathlib import Path

from astro_cli.config.files import expanded
from astro_cli.zoo.places import CHECKPOINTS_VARIABLE
from eval.contract import Need
from eval.networks import weights_paths

FOLDER = "dreamsim"
PACKAGE_CACHE = Path("~/.cache")  # where the dreamsim package puts them when VBench-Long calls it
CLIP, OPEN_CLIP, LORA = "clip_vitb16_pretrain.pth.tar", "open_clip_vitb16_pretrain.pth.tar", "ensemble_lora"
CONFIG, WEIGHTS = f"{LORA}/adapter_config.json", (f"{LORA}/adapter_model.safetensors", f"{LORA}/adapter_model.bin")
ARCHIVE = "dreamsim_ensemble_checkpoint.zip (release v0.2.0-checkpoints of ssundaram21/dreamsim, MIT)"


def folder() -> Path:
    """`<checkpoints>/eval/dreamsim`, or the package's cache where only that is complete."""
    own, cache = weights_paths.folder() / FOLDER, expanded(PACKAGE_CACHE)
    return cache if _lost(own) and not _lost(cache) else own


def dreamsim_files() -> tuple[Path, ...]:
    """The files that are read, those of them that are there."""
    paths = [folder() / name for name in (CLIP, OPEN_CLIP, CONFIG)]
    adapter = next((folder() / name for name in WEIGHTS if (folder() / name).is_file()), None)
    return tuple(path for path in (*paths, adapter) if path is not None and path.is_file())


def dreamsim_need() -> Need:
    """The ensemble's files, but for DINO's backbone."""

    def missing() -> str:
        lost = _lost(folder())
        put = f"unpack {ARCHIVE} at {folder()}; {CHECKPOINTS_VARIABLE} moves the checkpoints folder"
        return f"weights of DreamSim: {', '.join(lost)} not there: {put}" if lost else ""

    return Need("DreamSim's ensemble (ssundaram21/dreamsim)", missing)


def _lost(where: Path) -> list[str]:
    lost = [name for name in (CLIP, OPEN_CLIP, CONFIG) if not (where / name).is_file()]
    return lost if any((where / name).is_file() for name in WEIGHTS) else [*lost, WEIGHTS[0]]
