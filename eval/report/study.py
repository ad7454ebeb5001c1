"""Writes the results of a finished study: tables, reward curves, contact sheets, side-by-side clips, one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from astro_cli.config.durable import write_text
from astro_cli.generate import media
from astro_cli.generate.arm import load_arm
from astro_cli.generate.mp4 import write_mp4
from eval.papers.claims import Verdict, load_claims
from eval.papers.verdicts import evaluate
from eval.records import store
from eval.renderers import render
from eval.renderers.joined import join
from eval.report import figures, sheets
from eval.report.clips import Take
from eval.report.curves import read_run
from eval.report.sections import FOREWORD, PageContent, write_page
from eval.report.tables import paper_title
from eval.report.training_records import PROMPTS
from eval.world import shapes
from eval.world.oracle_scores import prompt_set_hash
from eval.world.suites import world_suite

CLIP_SCALE = 6  # pixels per world pixel
NOISE_SEED = 0  # of the clips
LOSSES = ("student/loss", "student/reward", "student/gate", "critic/loss")  # of a run without rewards of its own


class WrittenStudy(NamedTuple):
    """The page, and the verdicts on the paper's claims."""

    page: Path
    verdicts: list[Verdict]


def write_study(
    paper: str,
    tables: Sequence[str],
    runs: dict[str, list[Path]],
    prompts: Mapping[str, int],
    folder: Path,
    lead: str,
    drawn: Sequence[Path] = (),
) -> WrittenStudy:
    """Write tables/, figures/, clips/ and index.html under `folder`.

    Args:
        runs: the tuned runs of every base.
        prompts: held-out prompts by suite.
        lead: what the page's clips are.
        drawn: figures that are there already, for the page.
    """
    records = study_records(folder, prompts)
    items = join(tables, records)
    for item in items:
        for fmt, ending in (("markdown", "md"), ("json", "json"), ("csv", "csv")):
            text = render.render(item.view, item.differences, fmt, item.claims)
            write_text(folder / "tables" / f"{item.view.id}.{ending}", text)
    rewards = {}
    for base, paths in runs.items():
        rewards[_name(base)] = [figures.read_metrics(run / "metrics.jsonl") for run in paths]
    logged = {key for seeds in rewards.values() for rows in seeds for row in rows for key in row}
    keys = None if logged & {*figures.GAINS, *figures.REWARDS} else [key for key in LOSSES if key in logged]
    figures.reward_curves(rewards, folder / "figures" / "reward_curves.png", keys or None)
    verdicts = evaluate(load_claims(paper), records)
    content = PageContent(
        title=f"{paper_title(paper)} on the embedded world",
        lead=f"{lead} {FOREWORD['shapes']}",
        papers={paper: verdicts},
        items=items,
        records=records,
        runs=[read_run(run, "shapes") for paths in runs.values() for run in paths],
        takes=[take for base, paths in runs.items() for take in _takes(base, paths[0], folder)],
        figures=drawn,
    )
    page = folder / "index.html"
    write_page(page, content, lambda section: None)
    return WrittenStudy(page, verdicts)


def study_records(folder: Path, prompts: Mapping[str, int]) -> list[store.Record]:
    """A study's records; those on other numbers of prompts are left out, since a quick study and a full one may share
    the folder.
    """
    sets = {
        PROMPTS,
        *(prompt_set_hash(world_suite(name).load().prompt_set(count)) for name, count in prompts.items()),
    }
    return [record for record in store.load_results(folder) if record.prompt_set_hash in sets]


def _takes(base: str, run: Path, folder: Path) -> list[Take]:
    """Clips of base and tuned student from the same noise; also as files side by side, and as a contact sheet."""
    before, after = load_arm(base), load_arm(str(run))
    prompts, stem = shapes.prompt_set(sheets.SHORT_PROMPTS), _name(base)
    pair = [sheets.short_clips(arm, prompts) for arm in (before, after)]
    sheets.write_short_sheet(prompts, pair, folder / "figures" / f"sheet_short_{stem}.png", before.backbone.fps)
    takes = []
    for index, (prompt, left, right) in enumerate(zip(prompts, *pair, strict=True)):
        frames = media.side_by_side(left, right, scale=CLIP_SCALE)
        gif, mp4 = (folder / "clips" / f"{stem}_{index}.{ending}" for ending in ("gif", "mp4"))
        media.write_gif(frames, gif, before.backbone.fps, band=frames.shape[1] - left.shape[1] * CLIP_SCALE)
        write_mp4(frames, mp4, before.backbone.fps)
        clips: dict[str, np.ndarray] = dict(zip(sheets.NAMES, (left, right), strict=True))
        takes.append(Take(prompt, NOISE_SEED, before.backbone.fps, clips, group=stem.replace("_", " ")))
    return takes


def _name(base: str) -> str:
    return base.rpartition("/")[2]
