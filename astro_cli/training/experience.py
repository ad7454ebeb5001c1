"""What an RL step learns from: groups of clips by the old policy, their rewards, and each clip's credit and risk."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from accelerate import Accelerator

from astro_cli.config.errors import RecipeError, RunError
from astro_cli.core.credit import Term
from astro_cli.core.disagreement import RiskRatio, rank_disagreement, threshold
from astro_cli.core.rng import stream, stream_seed
from astro_cli.models.backbone import Backbone
from astro_cli.objectives.base import Batch, RunContext
from astro_cli.recipe import objective_class, resolve_kind
from astro_cli.spec import ExperienceSpec, Recipe, StageSpec
from astro_cli.training import base_scores
from astro_cli.training.base_gain import base_roller, describe_gain, first_members
from astro_cli.training.base_scores import BaseScores
from astro_cli.training.clip_samples import ClipSample
from astro_cli.training.clips import Clips, fewest_frames, window_start
from astro_cli.training.collapse import CollapseWatch, ConstantRewards
from astro_cli.training.credit import CreditRule, check_credit
from astro_cli.training.diagnostics import describe_credit, describe_disagreement, describe_rewards
from astro_cli.training.distributed import gather_rows, own_rows
from astro_cli.training.executors import INLINE, ClipMaker, Executor, watched_rewards
from astro_cli.training.sources import PromptSource, SourceContext, prompt_lines, refuse_samples

BASE_PROMPTS = 32  # of the grammar that the base is measured on, where a run has no list of its own
BASE = "base."  # names in a checkpoint


class ExperienceSource:
    """Collects one step's batches; every process rolls out its own whole groups, rewards are gathered before they are
    normalised.
    """

    context: SourceContext | None = None
    tables: ClassVar[tuple[str, ...]] = ("experience",)

    def __init__(
        self,
        spec: ExperienceSpec,
        prompts: PromptSource,
        run_context: RunContext,
        backbone: Backbone,
        accelerator: Accelerator,
        stage: str,
        *,
        record: bool = False,
        executor: Executor = INLINE,
    ) -> None:
        self.spec, self.prompts, self.run_context, self.backbone = spec, prompts, run_context, backbone
        self.accelerator, self.stage = accelerator, stage
        self.weights = spec.scored
        self.primary = spec.primary or next(iter(self.weights))
        tables, device = spec.scorers, run_context.device
        rewards = executor.scorers(list(self.weights), backbone, device, tables)
        frames = fewest_frames(spec, spec.frames or run_context.frames, run_context.block, backbone)
        watched = executor.scorers(watched_rewards(spec, backbone), backbone, device, tables)
        self.credit = CreditRule(spec.advantage, self.weights, spec.group)
        fitting = [reward for reward in watched if frames >= reward.num_frames_min]
        self.roller = executor.roller(
            spec, run_context, backbone, rewards + fitting, self.credit.rule.observe, stage=stage, record=record
        )
        self.base_roller = base_roller(executor, spec, run_context, backbone, self.roller.rewards, stage)
        for reward in rewards:
            if frames < reward.num_frames_min:
                what = f"scores clips of {reward.num_frames_min} frames or more, the recipe's have {frames}"
                raise RecipeError(
                    "video.frames" if not spec.clip else f"stages.{stage}.experience.clip", reward.key, what
                )
        self.base: BaseScores | None = None
        self.risk, self.watch = RiskRatio(), CollapseWatch(spec.collapse)
        self.constant = ConstantRewards(key for key, weight in self.weights.items() if weight)
        self.metrics: dict[str, Any] = {}
        self.samples: list[ClipSample] = []
        self.warning = self.collapsed = ""

    @classmethod
    def make(cls, context: SourceContext) -> ExperienceSource:
        assert context.spec.experience is not None, "checked with the recipe"
        prompts, record = PromptSource.make(context), objective_class(context.spec).wants_trajectory
        networks = (context.run_context, context.backbone, context.accelerator)
        source = cls(
            context.spec.experience, prompts, *networks, context.stage, record=record, executor=context.executor
        )
        source.context = context
        return source

    @classmethod
    def check(cls, recipe: Recipe, stage: StageSpec, key: str) -> None:
        """Refuse a stage without experience to collect, and what the credit rule refuses in its own keys."""
        PromptSource.check(recipe, stage, key)
        refuse_samples(stage, key)
        if stage.experience is None:
            raise ValueError(f"{key}.experience: missing, {stage.kind} learns from scored rollouts")
        resolve_kind("advantages", stage.experience.advantage, f"{key}.experience.advantage")
        check_credit(key, stage.experience.advantage, stage)
        if stage.experience.base_clips and recipe.lora is None:
            raise ValueError(
                f"{key}.experience.base_clips: the base is the student without adapters; there is no [lora]"
            )

    @classmethod
    def check_files(cls, stage: StageSpec) -> None:
        PromptSource.check_files(stage)

    def draw(self, use: str, size: int) -> Batch:
        return self.prompts.draw(use, size)

    def batches(self, step: int, role: str) -> list[Batch]:
        """This process's batches of the step: rolled out, scored, each group's members dealt out over the step's
        updates.
        """
        group, self.metrics = self.spec.group, {}
        if self.credit.base_samples and self.base is None:
            self.base = self._measured()
        requested = self.prompts.batch(self.stage, step, "prompts", self.spec.prompts)
        mine = own_rows(self.accelerator, self.spec.prompts)
        owners = requested.seeds[mine]
        prompts = [prompt for prompt in requested.prompts[mine] for _ in range(group)]
        seeds = [stream_seed(seed, "member", member) for seed in owners for member in range(group)]
        text = (
            self.backbone.encode_text(requested.prompts[mine]).repeat_interleave(group, 0).to(self.run_context.device)
        )
        self.roller.begin(requested.shared)
        clips = self._roll_out(self.roller, prompts, seeds, text, owners, requested.shared)
        self._log_gain(clips, prompts, seeds, text, owners, requested.shared)
        credit, at_risk = self._judge(step, clips, requested.prompts, mine)
        orders = [
            torch.randperm(group, generator=stream(seed, "shuffle")) + row * group for row, seed in enumerate(owners)
        ]
        batches = []
        for update, part in enumerate(
            torch.stack(orders).chunk(self.spec.updates, dim=1)
        ):  # each sees every prompt, whichever process holds it
            rows = part.flatten()
            batches.append(
                Batch(
                    [seeds[i] for i in rows],
                    [prompts[i] for i in rows],
                    text_BMD=text[rows],
                    latents_BFCHW=clips.latents[rows],
                    credit=tuple(term.rows(rows) for term in credit),
                    risk_B=self._risk_weights(at_risk, mine, rows),
                    history_PFCHW=clips.history,
                    group_B=rows // group,
                    group_seeds=[stream_seed(owners[row // group], "group", update) for row in rows.tolist()],
                    trajectory=None if clips.trajectory is None else clips.trajectory.rows(rows),
                    update=update,
                )
            )
        return batches

    def _roll_out(
        self,
        roller: ClipMaker,
        prompts: list[str],
        seeds: list[int],
        text: torch.Tensor,
        owners: list[int],
        shared: int,
    ) -> Clips:
        starts = None
        if self.spec.same_noise:
            starts = [stream_seed(owner, "x_T") for owner in owners for _ in range(roller.spec.group)]
        if not self.spec.clip:
            return roller.sequences(prompts, seeds, text, starts)
        start = window_start(self.spec, roller.frames, self.run_context.block, shared)
        self.metrics["window/start"] = float(start)
        return roller.candidates(prompts, seeds, text, owners, start, starts)

    def _log_gain(
        self, clips: Clips, prompts: list[str], seeds: list[int], text: torch.Tensor, owners: list[int], shared: int
    ) -> None:
        """Roll out and score the first clips of every group by the base too, and log by how much the old policy's score
        more.
        """
        roller = self.base_roller
        if roller is None:
            return
        rows = first_members(len(owners), self.spec.group, roller.spec.group)
        roller.begin(shared)
        base = self._roll_out(
            roller, [prompts[row] for row in rows], [seeds[row] for row in rows], text[rows], owners, shared
        )
        policy = {key: self._gather(value[rows]) for key, value in clips.scores.items()}
        untuned = {key: self._gather(value) for key, value in base.scores.items()}
        self.metrics |= describe_gain(policy, untuned, self.weights)

    def _judge(
        self, step: int, clips: Clips, prompts: list[str], mine: slice
    ) -> tuple[tuple[Term, ...], torch.Tensor | None]:
        """Credit of this process's clips, and which of all clips are at risk; fills the metrics, the warning and the
        samples.

        `prompts` are those of all processes, one per group.
        """
        logged_N = {key: self._gather(value) for key, value in clips.scores.items()}
        scores_N = {key: logged_N[key] for key in self.weights}
        constant = self._constant({key: value for key, value in scores_N.items() if self.weights[key]}, step)
        observed_N = {name: self._gather(value) for name, value in clips.observed.items()}
        scored = self.credit.scored(scores_N, observed_N, prompts, self.base)
        _, frames, _, rows, columns = clips.latents.shape
        credit = self.credit.credit(scored, (frames, rows, columns))
        everyone_PG, credit_PG = scored.total(), credit.per_sample()
        self.metrics |= describe_rewards(logged_N, everyone_PG, credit_PG) | describe_credit(credit_PG)
        self.metrics |= {f"advantage/{key}": value for key, value in credit.metrics.items()}
        self.metrics |= describe_disagreement(scores_N, self.primary)
        self._watch(everyone_PG, clips)
        self.warning = self.collapsed or constant
        self._pick_samples(step, clips, prompts, everyone_PG.flatten())
        return credit.of_prompts(mine), self._at_risk(scores_N)

    def _base_lines(self) -> list[str]:
        """The prompts that the base is measured on: the run's list, or some of the grammar's."""
        assert self.context is not None, "a run's source"
        some = self.context.spec.data.model_copy(update={"captions": BASE_PROMPTS})
        lines = self.prompts.lines or prompt_lines(some)
        assert lines is not None
        return lines

    def _measured(self) -> BaseScores:
        """Scores of the base on the run's prompts, or on some of the grammar's: kept ones, or measured now, before the
        first update; every process measures its own share of the prompts.
        """
        context, samples, rewards = self.context, self.credit.base_samples, [*self.weights]
        assert context is not None, "a run's source"
        lines = self._base_lines()
        key = base_scores.key_of(context.recipe, self.spec, rewards, lines, samples)
        kept = base_scores.read(key, lines, rewards, samples)
        if bool(self._gather(torch.tensor([kept is not None])).all()) and kept is not None:
            return kept
        size = math.ceil(len(lines) / self.accelerator.num_processes)
        first = self.accelerator.process_index * size
        mine = [lines[row % len(lines)] for row in range(first, first + size)]
        part = base_scores.measure(
            self.spec,
            self.run_context,
            self.backbone,
            [reward for reward in self.roller.rewards if reward.key in self.weights],
            mine,
            samples,
            lambda done, total: context.progress("base scores", done, total),
        )
        scores = {key: self._gather(part.scores[key])[: len(lines)] for key in rewards}
        whole = BaseScores(lines, scores)
        if self.accelerator.is_main_process:
            base_scores.keep(key, whole)
        return whole

    def _at_risk(self, scores_N: dict[str, torch.Tensor]) -> torch.Tensor | None:
        """(N,) which samples of the epoch the primary reward over-scores (Alg. 1, lines 9-17); None without a
        primary.
        """
        if self.spec.primary is None:
            return None
        others = [value for key, value in scores_N.items() if key != self.primary]
        delta_N = rank_disagreement(torch.stack([scores_N[self.primary], *others])) * (
            1 if self.spec.ranks == "paper" else -1
        )
        ratio = self.risk.update(delta_N)
        tau = threshold(delta_N, ratio)
        mask = delta_N > tau
        self.metrics |= {
            "kl/risk_ratio": ratio,
            "kl/rank_threshold": tau,
            "kl/masked_share": mask.float().mean().item(),
        }
        return mask

    def _risk_weights(self, at_risk: torch.Tensor | None, mine: slice, rows: torch.Tensor) -> torch.Tensor | None:
        """Per sample of an update N / |M| where it is at risk, so that means over the update, in parts and processes,
        are 1 / |M| sums over M.
        """
        if at_risk is None:
            return None
        own = at_risk.reshape(-1, self.spec.group)[mine].flatten()[rows].float()
        count = self._gather(own.sum()[None]).sum()
        return own * (len(rows) * self.accelerator.num_processes / count.clamp_min(1))

    def _constant(self, scores_N: dict[str, torch.Tensor], step: int) -> str:
        """What to say of rewards that gave all clips of the epoch the same score, or nothing.

        Raises:
            RunError: one of them never varied, or has not for several epochs.
        """
        notes = []
        for key in self.constant.see(scores_N):
            score, count = scores_N[key][0].item(), len(scores_N[key])
            what = f"the same score, {score:.4g}, for all {count} clips of epoch {step}: nothing can be learnt from it"
            if self.constant.is_broken(key):
                raise RunError("reward", key, what, hint="the run can be resumed from its last checkpoint")
            notes.append(f"{key}: {what}")
        return "; ".join(notes)

    def _watch(self, everyone_PG: torch.Tensor, clips: Clips) -> None:
        motion = self._gather(clips.motion).mean().item()
        self.metrics["reward/motion"] = motion
        self.collapsed = self.watch.see(everyone_PG.mean().item(), motion)

    def _pick_samples(self, step: int, clips: Clips, prompts: list[str], total_N: torch.Tensor) -> None:
        """The best and the worst clip of all processes, every `samples_every` epochs; only the main process, which
        writes them, gets them.
        """
        self.samples = []
        if not self.spec.samples_every or step % self.spec.samples_every:
            return
        rows, own, group = (int(total_N.argmax()), int(total_N.argmin())), len(clips.latents), self.spec.group
        latents = self._gather(
            clips.latents[[row % own for row in rows]]
        )  # two of every process, of which the owner's are the ones
        history = None if clips.history is None else self._gather(clips.history[[row % own // group for row in rows]])
        if not self.accelerator.is_main_process:
            return
        for place, (name, row) in enumerate(zip(("best", "worst"), rows, strict=True)):
            at, decoder = (
                slice(row // own * len(rows) + place, row // own * len(rows) + place + 1),
                self.backbone.decoder(),
            )
            if history is not None:
                decoder.skip(history[at])
            self.samples.append(
                ClipSample(name, decoder.push(latents[at])[0], prompts[row // group], total_N[row].item())
            )

    def _gather(self, value: torch.Tensor) -> torch.Tensor:
        return gather_rows(self.accelerator, value)

    def stop(self) -> tuple[str, str] | None:
        if not self.collapsed or not self.spec.collapse.stop:
            return None
        again = f"--resume --set stages.{self.stage}.experience.collapse.stop=false"
        return f"collapsed: {self.collapsed}", f"to go on all the same: {again}"

    def state(self) -> dict[str, torch.Tensor]:
        """What the next epoch needs: risk ratio with its buffer, what the watches saw, the credit rule's state."""
        base = {} if self.base is None else {BASE + key: value for key, value in self.base.scores.items()}
        watches = {"collapse": self.watch.state(), "constant": self.constant.state()}
        return {"risk": self.risk.state(), **watches, **self.credit.state(), **base}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        self.risk.load(state["risk"])
        self.watch.load(state["collapse"])
        self.constant.load(state.get("constant"))
        self.credit.load_state(state)
        if scores := {name.removeprefix(BASE): value for name, value in state.items() if name.startswith(BASE)}:
            self.base = BaseScores(self._base_lines(), scores)
