"""The table of a recipe that says which pairs of a preferred and a rejected clip a stage learns from. Free of torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from astro_cli.config.base import Config

PairKind = Literal["reverse", "shuffle", "freeze", "group", "rater", "file"]
PERTURBED: tuple[PairKind, ...] = ("reverse", "shuffle", "freeze")  # a clip, and the same in another order of frames
ROLLED: tuple[PairKind, ...] = ("group", "rater")  # two rollouts of the policy
PAIR_KINDS: tuple[PairKind, ...] = (*PERTURBED, *ROLLED, "file")

Size = Annotated[int, Field(gt=0, le=10**6)]
Share = Annotated[float, Field(ge=0, le=10**6)]


class FormSpec(Config):
    """Length and size of the clips of a step, in latent frames and cells."""

    frames: Size
    height: Size
    width: Size


class RaterSpec(Config):
    """A simulated rater, who prefers a to b with chance sigmoid((O_a - O_b) / temperature), O the oracle's overall
    score in [0, 1].

    Attributes:
        flips: share of the verdicts that are turned round.
        tie: pairs whose scores are this close are left out.
    """

    temperature: float = Field(default=0.1, gt=0)
    flips: float = Field(default=0.1, ge=0, lt=0.5)
    tie: float = Field(default=0.02, ge=0)


class PairSpec(Config):
    """What the pairs of a stage are.

    Attributes:
        kinds: share of each kind: a clip beside its `reverse`, local `shuffle` or `freeze`; best and worst of a `group`
            of rollouts; a simulated `rater`'s verdict on rollouts; or the pairs of the `file` `data.pairs`.
        forms: of the clips; one is drawn for each step. Absent: the recipe's video.
        group: rollouts per prompt.
        parallel: rollouts at once; absent: all of a step.
        rewards: weights of the rewards that rank a group; one of weight 0 may be the `overlap`.
        scorers: own keys of the evaluation's scorers that are rewards.
        overlap: reward in which best and worst must be alike, up to `overlap_most` (hard negatives: the same meaning,
            another quality).
    """

    kinds: dict[PairKind, Share]
    forms: tuple[FormSpec, ...] = ()
    group: int = Field(default=4, gt=1, le=10**9)
    parallel: Size | None = None
    rewards: dict[str, Share] = Field(default={})
    scorers: dict[str, dict[str, Any]] = Field(default={})
    overlap: str | None = None
    overlap_most: float = Field(default=0.1, gt=0)
    rater: RaterSpec = RaterSpec()

    @model_validator(mode="after")
    def _check(self) -> PairSpec:
        if not self.used:
            raise ValueError(f"kinds: found no share above 0, give one of {', '.join(PAIR_KINDS)} a share")
        if "group" in self.used and not any(self.rewards.values()):
            raise ValueError("rewards: all weights are zero, a group is ranked by rewards")
        if self.overlap is not None and self.overlap not in self.rewards:
            raise ValueError(f"overlap: found {self.overlap!r}, expected one of the rewards: add it, weight 0 will do")
        return self

    @property
    def used(self) -> tuple[PairKind, ...]:
        """Kinds with a share."""
        return tuple(kind for kind in PAIR_KINDS if self.kinds.get(kind, 0.0) > 0)

    @property
    def scored(self) -> list[str]:
        """Rewards to score."""
        return [*self.rewards] if "group" in self.used else []
