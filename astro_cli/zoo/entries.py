"""The released checkpoints astro knows: hub repository, file, nesting, licence, block size. A table, free of torch.

Source: the pages and files of the hub repositories; block sizes and nesting are those of the releases' own inference
code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from astro_cli.zoo import hub

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
CODE_APACHE = "Apache-2.0 (code)"
WAN_APACHE = "Apache-2.0"
HUB_PAGE = "see the hub page"
CHUNK, FRAME = 3, 1  # latent frames of a block: chunk-wise and frame-wise students


@dataclass(frozen=True)
class Release:
    """One released checkpoint.

    `file` is its path in the hub repository (a folder's files: what a folder is recognised by); `tail` is the shortest
    end of its path on disk that no other entry has, without ending. `plain_first`: the release runs the weights without
    moving average. `block`: latent frames that are generated at once; None for the bidirectional teachers, which do not
    stream.
    """

    name: str
    repo: str
    file: str
    tail: str
    what: str
    format: str
    nesting: str
    licence: str
    kind: str = "transformer"  # or "lora"
    plain_first: bool = False
    block: int | None = CHUNK

    @property
    def folder(self) -> str:
        return self.repo.split("/")[1]

    @property
    def is_folder(self) -> bool:
        """Whether the repository as a whole is the checkpoint, and not one file of it."""
        return self.tail == self.folder


SF, CF, LL, MF = (
    "gdhe17/Self-Forcing",
    "zhuhz22/Causal-Forcing",
    "Efficient-Large-Model/LongLive-1.3B",
    "KlingTeam/MemFlow",
)
PICKLE = "torch.save, original names"
EITHER, WITH_EMA = "generator_ema or generator", "generator, critic, generator_ema"


def _causal_forcing(name: str, file: str, what: str, *, plain_first: bool = False) -> Release:
    block = FRAME if "framewise" in file else CHUNK
    return Release(
        name, CF, f"{file}.pt", file, what, PICKLE, EITHER, CODE_APACHE, plain_first=plain_first, block=block
    )


ENTRIES = (
    Release(
        "wan_1.3b",
        "Wan-AI/Wan2.1-T2V-1.3B",
        "diffusion_pytorch_model.safetensors",
        "Wan2.1-T2V-1.3B",
        "teacher, 1.3B",
        "safetensors, original names",
        "flat",
        WAN_APACHE,
        block=None,
    ),
    Release(
        "wan_14b",
        "Wan-AI/Wan2.1-T2V-14B",
        "diffusion_pytorch_model.safetensors.index.json",
        "Wan2.1-T2V-14B",
        "teacher, 14B",
        "sharded safetensors, original names",
        "flat",
        WAN_APACHE,
        block=None,
    ),
    Release(
        "wan_1.3b_diffusers",
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        "transformer/diffusion_pytorch_model.safetensors.index.json",
        "Wan2.1-T2V-1.3B-Diffusers",
        "teacher, 1.3B",
        "diffusers folder",
        "flat",
        WAN_APACHE,
        block=None,
    ),
    Release(
        "wan_14b_diffusers",
        "Wan-AI/Wan2.1-T2V-14B-Diffusers",
        "transformer/diffusion_pytorch_model.safetensors.index.json",
        "Wan2.1-T2V-14B-Diffusers",
        "teacher, 14B",
        "diffusers folder",
        "flat",
        WAN_APACHE,
        block=None,
    ),
    Release(
        "self_forcing",
        SF,
        "checkpoints/self_forcing_dmd.pt",
        "self_forcing_dmd",
        "Self-Forcing student",
        PICKLE,
        WITH_EMA,
        CODE_APACHE,
    ),
    Release(
        "self_forcing_ode_init",
        SF,
        "checkpoints/ode_init.pt",
        "checkpoints/ode_init",
        "Self-Forcing's ODE initialisation",
        PICKLE,
        "generator or flat",
        CODE_APACHE,
    ),
    _causal_forcing(
        "causal_forcing", "chunkwise/causal_forcing", "Causal-Forcing student, chunk-wise", plain_first=True
    ),
    _causal_forcing("causal_forcing_ar", "chunkwise/ar_diffusion", "stage 1 (AR diffusion), chunk-wise"),
    _causal_forcing("causal_forcing_ode", "chunkwise/causal_ode", "stage 2a (causal ODE), chunk-wise"),
    _causal_forcing("causal_forcing_cd", "chunkwise/causal_cd", "stage 2b (causal consistency), chunk-wise"),
    _causal_forcing("causal_forcing_long", "chunkwise/longvideo", "long videos, chunk-wise"),
    _causal_forcing("causal_forcing_framewise", "framewise/causal_forcing", "Causal-Forcing student, frame-wise"),
    _causal_forcing("causal_forcing_framewise_ar", "framewise/ar_diffusion", "stage 1 (AR diffusion), frame-wise"),
    _causal_forcing("causal_forcing_framewise_ode", "framewise/causal_ode", "stage 2a (causal ODE), frame-wise"),
    _causal_forcing("causal_forcing_framewise_cd", "framewise/causal_cd", "stage 2b (causal consistency), frame-wise"),
    _causal_forcing(
        "causal_forcing_1step", "causal-forcing++/framewise-1step", "Causal-Forcing++, one step, frame-wise"
    ),
    _causal_forcing(
        "causal_forcing_2step", "causal-forcing++/framewise-2step", "Causal-Forcing++, two steps, frame-wise"
    ),
    Release(
        "longlive", LL, "models/longlive_base.pt", "longlive_base", "LongLive student", PICKLE, WITH_EMA, CODE_APACHE
    ),
    Release(
        "longlive_lora",
        LL,
        "models/lora.pt",
        "LongLive-1.3B/models/lora",
        "LoRA over longlive",
        "torch.save, peft names",
        "generator_lora or flat",
        CODE_APACHE,
        kind="lora",
    ),
    Release(
        "reward_forcing",
        "JaydenLu666/Reward-Forcing-T2V-1.3B",
        "rewardforcing.pt",
        "rewardforcing",
        "Reward Forcing student",
        PICKLE,
        "flat",
        CODE_APACHE,
    ),
    Release("memflow", MF, "base.pt", "MemFlow/base", "MemFlow student", PICKLE, WITH_EMA, CODE_APACHE),
    Release(
        "memflow_lora",
        MF,
        "lora.pt",
        "MemFlow/lora",
        "LoRA over memflow",
        "torch.save, peft names",
        "generator_lora or flat",
        CODE_APACHE,
        kind="lora",
    ),
    Release(
        "krea_14b",
        "krea/krea-realtime-video",
        "krea-realtime-video-14b.safetensors",
        "krea-realtime-video-14b",
        "Krea student, 14B",
        "safetensors, original names after model.",
        "flat",
        HUB_PAGE,
    ),
)
BY_NAME = {entry.name: entry for entry in ENTRIES}


def stem(path: str) -> str:
    """A path without a checkpoint's ending; other dots stay."""
    return next((path.removesuffix(suffix) for suffix in SUFFIXES if path.endswith(suffix)), path)


def known(source: PurePath | str) -> Release | None:
    """The entry that a name, a hub id, or the path of a file or folder names. A hub id without a file names the
    repository's first entry.
    """
    text = str(source)
    return BY_NAME.get(text) or of_path(text) or _of_hub_id(text)


def _of_hub_id(text: str) -> Release | None:
    if (hub_id := hub.parse(text)) is None:
        return None
    return next((entry for entry in ENTRIES if entry.repo == hub_id.repo and hub_id.file in ("", entry.file)), None)


def of_path(path: PurePath | str) -> Release | None:
    """The entry whose file or folder a path names, whatever its ending; in the Hugging Face cache too."""
    at = hub.of_snapshot(path)
    place = PurePath(path) if at is None else PurePath(at.repo, at.file)
    parts = PurePath(stem(place.as_posix())).parts
    return next(
        (entry for entry in ENTRIES if parts[-len(PurePath(entry.tail).parts) :] == PurePath(entry.tail).parts), None
    )
