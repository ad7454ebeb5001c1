"""Evaluates a folder of videos under a suite: loads the videos, plans, scores what is missing, writes the records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from astro_cli.config.errors import RecordError
from astro_cli.media.decode import Backend, decoder_version, frames
from eval import inputs
from eval.contract import Frame, Sample
from eval.inputs.check import differing
from eval.inputs.entries import Finding
from eval.inputs.requirements import Requirements, of_suite
from eval.prompt_sets.catalog import prompt_set
from eval.records.video_scores import SampleStore
from eval.scoring import pool
from eval.scoring.outcome_writer import OutcomeWriter, checked_arm, checked_results
from eval.scoring.outcomes import Order, Outcome, applies, order_of, outcomes, within
from eval.scoring.scorers import ConfiguredScorer, configured_scorers, readiness
from eval.scoring.totals import TOTALS, gather, totals
from eval.scoring.worker import Failure, plan
from eval.suites.suite import Suite, load_suite

WAY_OUT = (
    "without any weights: `astro eval temporal-flickering DIR`, or on the embedded world `astro eval shapes --arm "
    "shapes/causal_forcing`; `astro eval list` says what each metric needs"
)


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        seed: of the records; None keeps the videos of each seed that the folder states apart, a record per seed.
        metrics: only these, and the totals that they complete; empty: the whole suite, with its totals.
        prompts: another prompt set than the suite's, or a list of one's own; "": the suite's.
        limit: the first so many prompts; the records are marked and no table shows them.
    """

    suite: str
    folder: Path
    arm: str
    results: Path = Path("results")
    seed: int | None = 0
    metrics: tuple[str, ...] = ()
    prompts: str = ""
    limit: int | None = None
    jobs: int = 1
    decoder: Backend = "auto"
    overrides: tuple[str, ...] = ()


@dataclass
class SeedOutcomes:
    """What an evaluation measured under one seed."""

    seed: int
    outcomes: list[Outcome]
    totals: list[Outcome]
    written: list[str]


@dataclass
class Report:
    """All of an evaluation.

    Attributes:
        not_run: scorer -> what it lacks.
        scored: how many (video, scorer) pairs were scored now; failures are none.
        reused: how many were scored before.
    """

    seeds: list[SeedOutcomes]
    failures: list[Failure]
    not_run: dict[str, list[str]]
    order: Order
    scored: int = 0
    reused: int = 0

    @property
    def complete(self) -> bool:
        return not self.not_run and all(
            outcome.complete for seed in self.seeds for outcome in (*seed.outcomes, *seed.totals)
        )


@dataclass
class Progress:
    """Callbacks: `read` per file opened, `warn` per finding about unlike videos, `begin` with the number of videos to
    score, `step` per video scored.
    """

    read: Callable[[int, int], None] = field(default=lambda done, total: None)
    begin: Callable[[int], None] = field(default=lambda total: None)
    step: Callable[[], None] = field(default=lambda: None)
    warn: Callable[[Finding], None] = field(default=lambda finding: None)


def evaluate(request: Request, progress: Progress) -> Report:
    """Score what is not scored yet and write a record of every complete metric.

    Raises:
        AstroError: nothing to score, a scorer asked for by name that is not ready, or records of the arm under another
            protocol.
    """
    checked_arm(request.arm)
    checked_results(request.results)
    suite = load_suite(request.suite)
    wanted = configured_scorers(suite, request.overrides, request.metrics)
    ready, not_run = _ready(wanted, named=bool(request.metrics))
    decoder = decoder_version(request.decoder)
    named = request.prompts or suite.prompts
    prompts = prompt_set(named) if named else None
    samples = inputs.load(request.folder, prompts, progress.read)
    if not samples:
        raise RecordError(
            request.folder, "", "no videos", hint="expected a folder of videos; `astro eval check` says more"
        )
    order = order_of(suite, samples, prompts, request.limit, 1 if request.seed is None else None)
    needs = of_suite(suite, request.suite, prompts)
    writers = _writers(request, suite, needs, samples, order, decoder)
    for writer in writers:
        writer.check(ready)
    counted = [sample for writer in writers for sample in writer.samples]
    if not counted:
        what = f"none of the {len(samples)} videos is of this prompt set with an index that counts, from 0"
        raise RecordError(request.folder, named or "prompts", what, hint="see `astro eval check`")
    for finding in differing(counted, needs):
        progress.warn(finding)
    kept = SampleStore(request.results, request.suite)
    kept.load(configured.name for configured in ready)
    works = plan(counted, ready, kept, partial(applies, suite))
    meant = sum(applies(suite, sample, configured) for sample in counted for configured in ready)
    report = Report([], [], not_run, order, reused=meant - sum(len(work.scorers) for work in works))
    progress.begin(len(works))
    for scored in pool.run(works, ready, partial(_frames, backend=request.decoder), decoder, request.jobs):
        for name, line in scored.lines.items():
            kept.add(name, line)
        report.scored += len(scored.lines)
        report.failures += scored.failures
        progress.step()
    report.seeds = [_file(writer, suite, ready, kept, request) for writer in writers]
    return report


def _ready(wanted: Sequence[ConfiguredScorer], *, named: bool) -> tuple[list[ConfiguredScorer], dict[str, list[str]]]:
    """The scorers that can run, and what the others lack.

    Raises:
        RecordError: none can run, or one that was asked for by name cannot.
    """
    missing = {configured.name: list(configured.missing) for configured in wanted if configured.missing}
    if missing and (named or len(missing) == len(wanted)):
        names = ", ".join(missing)
        what = "\n".join(
            [
                f"not ready, {len(missing)} of {len(wanted)} scorers:",
                *readiness({configured.name: configured.missing for configured in wanted}),
            ]
        )
        raise RecordError("eval", names, what, hint=WAY_OUT)
    return [configured for configured in wanted if configured.name not in missing], missing


def _writers(
    request: Request, suite: Suite, needs: Requirements, samples: list[Sample], order: Order, decoder: str
) -> list[OutcomeWriter]:
    """One per seed whose records are kept apart."""
    groups: dict[int, list[Sample]] = {}
    for sample in samples:
        if request.seed is None and sample.seed is None:
            what = "not stated, so --seed-from manifest cannot tell the videos apart"
            raise RecordError(sample.path, "seed", what, hint="add it, or leave the option out")
        seed = request.seed if request.seed is not None else sample.seed
        assert seed is not None
        group = groups.setdefault(seed, [])
        if request.seed is None and any(other.prompt_id == sample.prompt_id for other in group):
            what = f"{seed} is also that of another video of this prompt, and --seed-from manifest takes one of each"
            raise RecordError(sample.path, "seed", what, hint="correct it, or leave the option out")
        group.append(sample)
    return [
        OutcomeWriter.of_videos(request.results, suite, needs, request.arm, seed, within(group, order), order, decoder)
        for seed, group in sorted(groups.items())
    ]


def _file(
    writer: OutcomeWriter, suite: Suite, ready: Sequence[ConfiguredScorer], kept: SampleStore, request: Request
) -> SeedOutcomes:
    """Record what is complete, with the totals whose metrics are complete now or were recorded before. Of an evaluation
    of some metrics only complete totals are shown.
    """
    of_metrics = outcomes(suite, ready, writer.samples, writer.order, kept)
    if writer.order.limit is not None:
        return SeedOutcomes(writer.seed, of_metrics, [], writer.write(of_metrics, []))
    complete = {outcome.key for outcome in of_metrics if outcome.complete}
    parts = {metric for name in suite.totals.values() for metric in TOTALS[name].metrics}
    earlier = writer.recorded(parts - complete)
    summed = totals(suite.totals, gather(of_metrics, earlier))
    if request.metrics:
        summed = [total for total in summed if total.complete]
    readers = configured_scorers(suite, request.overrides) if earlier and summed else None
    return SeedOutcomes(
        writer.seed, of_metrics, summed, writer.write(of_metrics, summed, earlier=earlier, readers=readers)
    )


def _frames(sample: Sample, backend: Backend) -> Iterator[tuple[int, Frame]]:
    return frames(sample.path, backend)
