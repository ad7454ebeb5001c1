"""Checks that videos agree with each other and with the suite's protocol: fps, frames, size, length."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from eval.contract import VideoInfo
from eval.inputs.entries import Entry, Finding, about
from eval.inputs.requirements import Requirements

FPS_DIGITS = 3  # 30000/1001 as written by two programs
PUBLISHED = " are the suite's published numbers; others are scored too, and their records say so"
SECONDS_TOLERANCE = 0.25  # 957 frames at 16 fps, 59.8 s, are a published 60 s video

Infos = Mapping[Path, VideoInfo]


def uniform(folder: Path, infos: Infos, needs: Requirements) -> list[Finding]:
    """Videos that differ from the protocol, or where that says nothing from most of the others."""
    protocol = needs.protocol
    width_height = None if protocol.resolution is None else f"{protocol.resolution[0]}x{protocol.resolution[1]}"
    fps = None if protocol.fps is None else f"{round(protocol.fps, FPS_DIGITS):g}"
    return [
        *_differing(folder, "fps", infos, lambda info: f"{round(info.fps, FPS_DIGITS):g}", fps, needs.suite),
        *_differing(
            folder,
            "frames",
            infos,
            lambda info: str(info.frames),
            None if protocol.frames is None else str(protocol.frames),
            needs.suite,
        ),
        *_differing(folder, "resolution", infos, lambda info: f"{info.width}x{info.height}", width_height, needs.suite),
    ]


def _differing(
    folder: Path, key: str, infos: Infos, value: Callable[[VideoInfo], str], wanted: str | None, suite: str
) -> list[Finding]:
    """A finding per value found that is not the wanted one."""
    by_value: dict[str, list[str]] = defaultdict(list)
    for path, info in infos.items():
        by_value[value(info)].append(path.name)
    if wanted is not None:
        hint = f"of videos with {wanted}{PUBLISHED}"
        return [
            f
            for text, names in by_value.items()
            if text != wanted
            for f in about("error", folder, key, f"{text}, {suite} has {wanted}", names, hint=hint)
        ]
    most = Counter({text: len(names) for text, names in by_value.items()}).most_common(1)
    hint = "scores of videos that differ in this do not average"
    others = ((text, names) for text, names in by_value.items() if text != most[0][0])
    return [
        f
        for text, names in others
        for f in about("warning", folder, key, f"{text}, most videos have {most[0][0]}", names, hint=hint)
    ]


def lengths(folder: Path, infos: Infos, needs: Requirements) -> list[Finding]:
    """Videos of another length than the suite is for."""
    length, wanted = needs.length, needs.protocol.seconds
    longer = [path.name for path, info in infos.items() if info.seconds >= length.below]
    shorter = [path.name for path, info in infos.items() if info.seconds < length.at_least]
    other = [
        path.name
        for path, info in infos.items()
        if wanted is not None and abs(info.seconds - wanted) > SECONDS_TOLERANCE
    ]
    few = [path.name for path, info in infos.items() if info.frames < length.frames]
    return [
        *about(
            "error",
            folder,
            "frames",
            f"fewer than the {length.frames} frames that {needs.suite} needs",
            few,
            hint="make longer videos",
        ),
        *about("warning", folder, "seconds", f"{length.below:g} s or longer", longer, hint=length.reason),
        *about("warning", folder, "seconds", f"shorter than {length.at_least:g} s", shorter, hint=length.reason),
        *about(
            "error",
            folder,
            "seconds",
            f"not the {wanted or 0:g} s of {needs.suite}",
            other,
            hint=f"of videos with {wanted or 0:g} s{PUBLISHED}",
        ),
    ]


def cut_short(folder: Path, entries: Iterable[Entry], infos: Infos) -> list[Finding]:
    """Videos that end before their last segment does."""
    short = [
        entry.path.name
        for entry in entries
        if entry.segments
        and entry.path in infos
        and infos[entry.path].seconds < entry.segments[-1].end - SECONDS_TOLERANCE
    ]
    return about(
        "warning",
        folder,
        "segments",
        "ends before its last segment does",
        short,
        hint="that segment is scored on what is there",
    )


def without_switches(folder: Path, entries: Iterable[Entry], needs: Requirements) -> list[Finding]:
    """Videos of one prompt, where the suite scores segments."""
    single = [entry.path.name for entry in entries if needs.length.switches and not entry.segments and not entry.turns]
    hint = "name the prompts and their times in the manifest, or the prompt set"
    return about(
        "error",
        folder,
        "segments",
        f"one prompt throughout, {needs.suite} scores the parts between prompt switches",
        single,
        hint=hint,
    )


def late_segments(entries: Sequence[Entry], infos: Infos) -> list[Finding]:
    """Segments that no frame shows."""
    findings = []
    for entry in entries:
        if entry.path in infos and (problem := entry.problem(infos[entry.path])) is not None:
            findings.append(
                Finding("error", entry.path.name, problem.key, problem.what, problem.hint, (entry.path.name,))
            )
    return findings
