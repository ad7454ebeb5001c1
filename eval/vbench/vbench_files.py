"""Where VBench's weights and tables lie on disk. Free of torch.

The layout below the folder is the vbench package's own, so that one folder serves both. What its authors publish as a
repository of the Hugging Face hub is also taken from the local cache of `hf download`.
"""

from __future__ import annotations

import os
from pathlib import Path

from astro_cli.config.errors import CheckpointError
from astro_cli.config.files import expanded
from astro_cli.zoo import hub
from astro_cli.zoo.hub import HubId
from eval.contract import Need, package
from eval.networks.clip_names import file_names
from eval.networks.weights_paths import find

CACHE_VARIABLE, COTRACKER_VARIABLE = "VBENCH_CACHE_DIR", "ASTRO_COTRACKER"
DEFAULT_CACHE = Path("~/.cache/vbench")

# Name -> (path below the folder, what it is). vbench 0.1.5, utils.py, init_submodules; the DINOv2 file as its release
# names it.
FILES = {
    "dino": ("dino_model/dino_vitbase16_pretrain.pth", "DINO ViT-B/16 (facebookresearch/dino)"),
    "dinov2": ("dino_model/dinov2_vitb14_pretrain.pth", "DINOv2 ViT-B/14 (facebookresearch/dinov2)"),
    "clip_b32": ("clip_model/ViT-B-32.pt", "OpenAI CLIP ViT-B/32"),
    "clip_l14": ("clip_model/ViT-L-14.pt", "OpenAI CLIP ViT-L/14"),
    "aesthetic": (
        "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth",
        "LAION's aesthetic head (LAION-AI/aesthetic-predictor)",
    ),
    "amt": ("amt_model/amt-s.pth", "AMT-S (lalala125/AMT)"),
    "raft": ("raft_model/models/raft-things.pth", "RAFT (models.zip of princeton-vl/RAFT)"),
    "musiq": ("pyiqa_model/musiq_spaq_ckpt-358bb6af.pth", "MUSIQ-SPAQ (release v0.1-weights of chaofengc/IQA-PyTorch)"),
    "umt": ("umt_model/l16_ptk710_ftk710_ftk400_f16_res224.pth", "UMT-L/16 (OpenGVLab/VBench_Used_Models)"),
    "viclip": ("ViCLIP/ViClip-InternVid-10M-FLT.pth", "ViCLIP-L (OpenGVLab/VBench_Used_Models)"),
    "grit": ("grit_model/grit_b_densecap_objectdet.pth", "GRiT-B (JialianW/GRiT)"),
    "cotracker": ("cotracker_model/cotracker2.pth", "CoTracker2's weights (facebook/cotracker)"),
    "bert": (
        "bert-base-uncased/vocab.txt",
        "the vocabulary of bert-base-uncased (scene also reads its config.json and model.safetensors there)",
    ),
    "tag2text": ("caption_model/tag2text_swin_14m.pth", "Tag2Text Swin-B (xinyu1205/recognize-anything)"),
}
USED_MODELS = "OpenGVLab/VBench_Used_Models"
# The same files on the hub. Sources: vbench 0.1.5, utils.py, init_submodules (amt, umt, viclip); vbench's
# core/object_class.py (grit); pyiqa 0.1.16, archs/arch_util.py (musiq); co-tracker's hubconf.py. Tag2Text is in a
# space, which is no model; the hub's CLIP and DINO have other layouts.
HUB = {
    "amt": HubId("lalala125/AMT", file="amt-s.pth"),
    "umt": HubId(USED_MODELS, file="l16_ptk710_ftk710_ftk400_f16_res224.pth"),
    "viclip": HubId(USED_MODELS, file="ViClip-InternVid-10M-FLT.pth"),
    "grit": HubId(USED_MODELS, file="grit_b_densecap_objectdet.pth"),
    "musiq": HubId("chaofengc/IQA-PyTorch-Weights", file="musiq_spaq_ckpt-358bb6af.pth"),
    "cotracker": HubId("facebook/cotracker", file="cotracker2.pth"),
}
COTRACKER_CODE = "cotracker_model/co-tracker"
SHARED = {"clip_b32": "ViT-B-32", "clip_l14": "ViT-L-14"}  # also taken from where the other scorers have it
PACKAGE = package(
    "vbench", "vbench", "run `make setup`, or `pip install --no-deps vbench==0.1.5` and the extra `astro-cli[vbench]`"
)
PYIQA = package("pyiqa", "pyiqa", "run `make setup`, or `pip install --no-deps pyiqa==0.1.16`")


def cache_folder() -> Path:
    """The folder of VBench's weights: the variable VBENCH_CACHE_DIR, else ~/.cache/vbench."""
    return expanded(os.environ.get(CACHE_VARIABLE) or DEFAULT_CACHE)


def path_of(name: str) -> Path:
    """Where a file of FILES is, or belongs if it is nowhere: below the folder, else where the other scorers have it or
    in the cache of the hub.
    """
    path = cache_folder() / FILES[name][0]
    if path.is_file():
        return path
    elsewhere = find(*file_names(SHARED[name])) if name in SHARED else None
    return elsewhere or (hub.cached(HUB[name]) if name in HUB else None) or path


def require(name: str) -> Path:
    """A file of FILES.

    Raises:
        CheckpointError: it is not there.
    """
    path = path_of(name)
    if not path.is_file():
        raise CheckpointError(path, "", "no such file", hint=_hint(name))
    return path


def need(name: str) -> Need:
    """The weights of FILES[name]."""
    what = FILES[name][1]
    return Need(what, lambda: "" if path_of(name).is_file() else f"weights: {_hint(name)}")


def _hint(name: str) -> str:
    relative, what = FILES[name]
    line = f"{hub.download_line(HUB[name])}, or " if name in HUB else ""
    return f"{line}put {what} at {relative} below {cache_folder()} ({CACHE_VARIABLE})"


def cotracker_checkout() -> Path:
    """The user's checkout of CoTracker's code: the folder ASTRO_COTRACKER names, else one beside its weights."""
    return expanded(os.environ.get(COTRACKER_VARIABLE) or cache_folder() / COTRACKER_CODE)


def cotracker_code() -> tuple[Path, ...]:
    """The files of the checkout that decide where points go, for the hash of what scored a video."""
    folder = cotracker_checkout()
    return (
        folder / "hubconf.py",
        folder / "cotracker/predictor.py",
        *sorted((folder / "cotracker/models").rglob("*.py")),
    )


def need_cotracker() -> Need:
    """The checkout. Its licence, CC-BY-NC, lets no package carry it."""

    def missing() -> str:
        folder = cotracker_checkout()
        put = (
            f"put a checkout of facebookresearch/co-tracker (CC-BY-NC; its code is run) at {folder}, or name its "
            f"folder in {COTRACKER_VARIABLE}"
        )
        return "" if (folder / "hubconf.py").is_file() else f"code: {put}"

    return Need("CoTracker's code", missing)


def table(name: str) -> Path:
    """A table of VBench-Long that is packaged here, e.g. subject_mapping_table.yaml."""
    return Path(__file__).with_name(name)
