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
from eval.records.protocol_text import trained_once
from eval.renderers import render
from eval.renderers.joined import join
from eval.renderers.words import INTERVALS, one_training_text
from eval.report import figures, sheets
from eval.report.page import Fragment, Picture, Section, write_report
from eval.report.training_records import PROMPTS
from eval.world import shapes
from eval.world.oracle_scores import prompt_set_hash
from eval.world.suites import world_suite

CLIP_SCALE = 6  # pixels per world pixel
CLIP_REPEATS = 3  # a nine-frame clip is over in a second


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
    drawn: Sequence[Path] = (),
) -> WrittenStudy:
    """Write tables/, figures/, clips/ and index.html under `folder`.

    Args:
        runs: the tuned runs of every base.
        prompts: held-out prompts by suite.
        drawn: figures that are there already, for the page.
    """
    records = study_records(folder, prompts)
    rendered = []
    for name, item in zip(tables, join(tables, records), strict=True):
        for fmt, ending in (("markdown", "md"), ("json", "json"), ("csv", "csv")):
            text = render.render(item.view, item.differences, fmt, item.claims)
            write_text(folder / "tables" / f"{name}.{ending}", text)
        rendered.append(render.render(item.view, item.differences, "html", item.claims))
    curves = folder / "figures" / "reward_curves.png"
    rewards = {}
    for base, paths in runs.items():
        rewards[_name(base)] = [figures.read_metrics(run / "metrics.jsonl") for run in paths]
    figures.reward_curves(rewards, curves)
    sections = [
        Section("Published and measured", [Fragment(html) for html in rendered]),
        Section(
            "Reward during training",
            [Picture(curves, "reward curves", "Mean reward per epoch, total and by reward; thin lines are seeds.")],
        ),
    ]
    if drawn:
        shown = [
            Picture(path, path.stem, path.stem.replace("_", " "), wide=path.stem.startswith("sheet")) for path in drawn
        ]
        sections.append(Section("Figures", shown))
    sections += [_clips(base, paths[0], folder) for base, paths in runs.items()]
    page = folder / "index.html"
    once = [f"`{arm}`" for arm in trained_once(records)]
    intro = (
        "A streaming four-step student of the embedded world before and after forward-process reinforcement "
        "learning. Absolute values are not "
        "comparable with the paper's: the direction of the change is. "
        f"{INTERVALS} {one_training_text(once) if once else ''}"
    )
    write_report(page, f"{paper.title()} on the embedded world", intro, sections, protocol=_protocol(records))
    return WrittenStudy(page, evaluate(load_claims(paper), records))


def study_records(folder: Path, prompts: Mapping[str, int]) -> list[store.Record]:
    """A study's records; those on other numbers of prompts are left out, since a quick study and a full one may share
    the folder.
    """
    sets = {
        PROMPTS,
        *(prompt_set_hash(world_suite(name).load().prompt_set(count)) for name, count in prompts.items()),
    }
    return [record for record in store.load_results(folder) if record.prompt_set_hash in sets]


def _clips(base: str, run: Path, folder: Path) -> Section:
    """Contact sheet and side-by-side clips, base and tuned from the same noise."""
    before, after = load_arm(base), load_arm(str(run))
    prompts = shapes.prompt_set(sheets.SHORT_PROMPTS)
    pair = [sheets.short_clips(arm, prompts) for arm in (before, after)]
    stem = _name(base)
    sheet = folder / "figures" / f"sheet_short_{stem}.png"
    sheets.write_short_sheet(prompts, pair, sheet)
    parts: list[Picture] = [
        Picture(
            sheet,
            f"contact sheet of {stem}",
            "Frames from left to right; base above, tuned below, same prompt and noise.",
            wide=True,
        )
    ]
    for index, (prompt, left, right) in enumerate(zip(prompts, *pair, strict=True)):
        frames = media.side_by_side(
            np.concatenate([left] * CLIP_REPEATS), np.concatenate([right] * CLIP_REPEATS), scale=CLIP_SCALE
        )
        gif, mp4 = (folder / "clips" / f"{stem}_{index}.{ending}" for ending in ("gif", "mp4"))
        media.write_gif(frames, gif, before.backbone.fps)
        write_mp4(frames, mp4, before.backbone.fps)
        parts.append(Picture(gif, f"base beside tuned: {prompt}", prompt))
    return Section(f"Clips: {stem}", parts)


def _name(base: str) -> str:
    return base.rpartition("/")[2]


def _protocol(records: list[store.Record]) -> dict[str, str]:
    """Of the newest scores of every suite; what suites have in common is said once."""
    scored = [record for record in records if record.prompt_set_hash != PROMPTS]
    newest = {}
    for record in scored:
        newest[record.benchmark] = {key: str(value) for key, value in record.protocol.items() if key != "versions"}
    protocol = {}
    for key in dict.fromkeys(key for part in newest.values() for key in part):
        values = {name: part[key] for name, part in newest.items() if key in part}
        same = len(values) == len(newest) and len(set(values.values())) == 1
        protocol[key] = (
            next(iter(values.values())) if same else "; ".join(f"{name}: {value}" for name, value in values.items())
        )
    last = scored[-1]
    versions = ", ".join(f"{name} {version}" for name, version in last.protocol.get("versions", {}).items() if version)
    return {**protocol, "commit": last.commit, "versions": versions}
