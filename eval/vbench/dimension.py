"""How a VBench dimension is declared: its options, on whole videos or on VBench-Long's clips.

Free of torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from astro_cli.config.base import Config
from eval.contract import Declaration, MetricInfo, Need, NetworkCache, Sample, ScoreError, Scorer
from eval.vbench.long import Clips, Long
from eval.vbench.scenes import PACKAGE as SCENEDETECT
from eval.vbench.scenes import Scenes
from eval.vbench.vbench_files import path_of

Build = Callable[[Any, NetworkCache], Scorer]


class DimensionConfig(Config):
    """How a video is cut; see `eval.vbench.long.Clips`."""

    clips: Clips = "whole"


class SlowFastConfig(DimensionConfig):
    """`fast`: whose features compare the clips' first frames, "none" for no fusion; `fast_weight`: of that score beside
    the one within clips.
    """

    fast: str = "none"
    fast_weight: float = Field(0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _fast_compares_clips(self) -> Self:
        if self.fast != "none" and self.clips == "whole":
            raise ValueError("fast compares clips, so clips must not be 'whole'")
        return self


def declare(
    name: str,
    text: str,
    build: Build,
    *,
    unit: str = "0..1",
    needs: tuple[Need, ...] = (),
    files: tuple[str, ...] = (),
    config: type[DimensionConfig] = DimensionConfig,
    fuse: Callable[[Any, NetworkCache, Long], Scorer] | None = None,
    fuse_files: Callable[[Any], tuple[Path, ...]] = lambda config: (),
    reads: Callable[[Sample], tuple[Path, ...]] = lambda sample: (),
    config_needs: Callable[[Any], tuple[Need, ...]] = lambda config: (),
) -> Declaration:
    """A scorer of one metric, `name`, higher is better, that also runs on clips.

    Args:
        build: the scorer for one piece of video.
        files: the weights it reads, names of `eval.vbench.vbench_files.FILES`.
        fuse: what becomes of the scorer of clips; None leaves it.
        fuse_files: what the configuration makes it read besides.
        reads, config_needs: as of `Declaration`.
    """

    def build_cut(chosen: Any, loaded: NetworkCache) -> Scorer:
        scorer = build(chosen, loaded)
        if chosen.clips == "whole":
            return scorer
        long = Long(scorer, name, chosen.clips)
        fused = long if fuse is None else fuse(chosen, loaded, long)
        return Scenes(fused) if chosen.clips == "scenes" else fused

    def paths(chosen: Any) -> tuple[Path, ...]:
        return tuple(dict.fromkeys((*(path_of(file) for file in files), *fuse_files(chosen))))

    def more_needs(chosen: Any) -> tuple[Need, ...]:
        return (*config_needs(chosen), *((SCENEDETECT,) if chosen.clips == "scenes" else ()))

    info = MetricInfo(name, "up", unit, text)
    return Declaration(
        metrics=(info,),
        config=config,
        version=1,
        build=build_cut,
        needs=needs,
        config_needs=more_needs,
        files=paths,
        reads=reads,
    )


def at_least(sample: Sample, frames: int, name: str) -> None:
    """Raises: ScoreError: the video has fewer frames than the dimension compares."""
    if sample.info.frames < frames:
        raise ScoreError(sample.path, "frames", f"{sample.info.frames}, {name} needs {frames} or more")


def auxiliary(sample: Sample, name: str) -> Any:
    """What VBench's prompt set says for this dimension.

    Raises:
        ScoreError: the sample's prompt set says nothing; a custom prompt cannot be scored.
    """
    known = sample.labels.get("auxiliary_info", {})
    if name not in known:
        hint = "only prompts of VBench's own set have it: score with the suite's prompt set"
        raise ScoreError(sample.path, "auxiliary_info", f"nothing for {name}", hint=hint)
    return known[name]
