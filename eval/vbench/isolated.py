"""Gets scores of official VBench from an interpreter of its own, which the variable ASTRO_VBENCH_PYTHON names.

The four dimensions of GRiT need detectron2 and `scene` needs transformers 4: neither installs beside current libraries.
The interpreter is started once per run, so a network is loaded once. It gets one video or clip at a time.
docs/vbench.md says how to make one.
Dimensions: H, W pixel rows and columns.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from astro_cli.compat import torchvision_ops
from astro_cli.config.errors import RunError
from astro_cli.config.parsing import ParseError, parse_json
from astro_cli.core import threads
from eval.contract import Declaration, Frame, Need, NetworkCache, Sample, Score, ScoreError, Scorer
from eval.vbench import vbench_files
from eval.vbench.clip_file import ClipFile
from eval.vbench.dimension import DimensionConfig, auxiliary, declare

VARIABLE = "ASTRO_VBENCH_PYTHON"
WORKER = Path(__file__).with_name("worker.py")
TIMEOUT_S = 1800.0  # the first video also loads the network
TAIL_CHARACTERS = 2000
TOKENISER = "bert"
SUFFIXES = (".mp4", ".gif")  # of videos that vbench reads, in small letters
# Nothing is downloaded, and no code in a file of weights is run, whatever version of torch the interpreter has.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}


def interpreter() -> str | None:
    """The interpreter that the variable names, if it is there."""
    named = os.environ.get(VARIABLE)
    return shutil.which(os.path.expanduser(named)) if named else None


def need(what: str) -> Need:
    """An interpreter with official VBench; `what` says what else it must have."""

    def missing() -> str:
        if interpreter() is not None:
            return ""
        state = f"it names {os.environ[VARIABLE]}, which cannot be run" if os.environ.get(VARIABLE) else "it is not set"
        return f"not run: needs {VARIABLE}, the path of a Python with official vbench 0.1.5 and {what}; {state}"

    return Need(f"official vbench with {what}", missing)


class Worker:
    """The other interpreter, started when first asked. Closing it, or letting it go, ends it.

    Args:
        timeout_s: how long an answer may take.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self.timeout_s = timeout_s
        self.process: subprocess.Popen[str] | None = None
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - lives as long as the process

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One answer for one request.

        Raises:
            RunError: no interpreter, it ended, took too long, or answered with something else than JSON.
        """
        process = self._running()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request, allow_nan=False) + "\n")
            process.stdin.flush()
        except OSError as error:
            raise self._failed("ended") from error
        answer = json_object(self._line(process))
        if answer is None:
            raise self._failed("answered with no JSON object")
        return answer

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()
            self.process = None

    def __del__(self) -> None:
        self.close()

    def _running(self) -> subprocess.Popen[str]:
        if self.process is None:
            python = interpreter()
            if python is None:
                raise RunError(
                    "vbench",
                    VARIABLE,
                    "names no Python that can be run",
                    hint="the path of a Python with official vbench 0.1.5",
                )
            command = [python, "-u", str(WORKER), str(torchvision_ops.__file__)]
            number = {threads.USER_VARIABLE: str(threads.choose(threads.LARGE).number)}
            folder = (
                vbench_files.cache_folder()
            )  # where vbench's `from_pretrained("bert-base-uncased")` finds a folder of that name
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                text=True,
                encoding="utf-8",
                bufsize=1,
                cwd=folder if folder.is_dir() else None,
                env={**os.environ, **number, **ENVIRONMENT},
            )
        return self.process

    def _line(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(self.timeout_s):
                raise self._failed(f"gave no answer in {self.timeout_s:g} s")
        line = process.stdout.readline()
        if not line:
            raise self._failed("ended")
        return line

    def _failed(self, what: str) -> RunError:
        """The error, with the end of what the other side wrote; the process is over then."""
        self.close()
        self.errors.seek(0)
        tail = self.errors.read()[-TAIL_CHARACTERS:].strip()
        return RunError(
            "vbench",
            VARIABLE,
            f"{interpreter()} {what}",
            hint=f"its last words:\n{tail}" if tail else "it wrote nothing",
        )


def json_object(line: str) -> dict[str, Any] | None:
    """A line as a JSON object; None if it is none, or holds NaN."""
    try:
        content = parse_json(line)
    except ParseError:
        return None
    return content if isinstance(content, dict) else None


class _Watcher:
    """Writes a clip's frames to a file for the other interpreter. A whole video is already a file.

    Args:
        clip: to write; None: the video's own file is scored.
    """

    def __init__(self, scorer: IsolatedScorer, sample: Sample, clip: ClipFile | None) -> None:
        self.scorer, self.sample, self.clip = scorer, sample, clip

    def see(self, index: int, frame_HWC: Frame) -> None:
        if self.clip is not None:
            self.clip.add(frame_HWC)

    def scores(self) -> dict[str, Score]:
        if self.clip is None:
            return {self.scorer.name: self.scorer.score(self.sample, self.sample.path)}
        with self.clip as path:
            return {self.scorer.name: self.scorer.score(self.sample, path)}


class IsolatedScorer:
    """A dimension of official VBench, run elsewhere on a file.

    Args:
        weights: the file its network reads.
        extra: what else the other side must know of a sample.
        clips: whether samples are clips, each written to a file of its own, as the released code does, and not whole
            files.
    """

    def __init__(
        self,
        name: str,
        weights: Path,
        worker: Worker,
        extra: Callable[[Sample], dict[str, Any]],
        *,
        clips: bool = False,
    ) -> None:
        self.name, self.weights, self.worker, self.extra, self.clips = name, weights, worker, extra, clips

    def watch(self, sample: Sample) -> _Watcher:
        if not self.clips and not sample.path.name.endswith(SUFFIXES):
            raise ScoreError(
                sample.path, self.name, f"official vbench reads no such file, allowed: {', '.join(SUFFIXES)}"
            )
        self.extra(sample)
        return _Watcher(self, sample, ClipFile(sample) if self.clips else None)

    def score(self, sample: Sample, path: Path) -> Score:
        """The score of the file that holds the sample.

        Raises:
            ScoreError: vbench cannot score it.
            RunError: the other interpreter is at fault.
        """
        request = {
            "dimension": self.name,
            "video": str(path.resolve()),
            "prompt": sample.prompt,
            "weights": str(self.weights.resolve()),
            "auxiliary": None,
            **self.extra(sample),
        }
        answer = self.worker.ask(request)
        if "error" in answer:
            raise ScoreError(sample.path, self.name, f"official vbench failed: {answer['error']}")
        value = answer.get("value")
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ScoreError(sample.path, self.name, f"official vbench gave {value!r}, expected a number")
        return Score(None if value is None else float(value), answer.get("details", {}))


def shared_worker(loaded: NetworkCache) -> Worker:
    """One process for all scorers of a run, so that dimensions of one network load it once."""
    return loaded.get(("vbench worker", interpreter()), Worker)


def declare_isolated(name: str, text: str, weights: str, what: str) -> Declaration:
    """A dimension of VBench's own prompt set; the prompt set's `auxiliary_info` goes with the video.

    Args:
        weights: a name of `eval.vbench.vbench_files.FILES`, besides which its tokeniser's vocabulary is read.
        what: the package that only the other interpreter can have.
    """

    def build(config: DimensionConfig, loaded: NetworkCache) -> Scorer:
        vbench_files.require(TOKENISER)
        clips = config.clips != "whole"
        return IsolatedScorer(
            name,
            vbench_files.require(weights),
            shared_worker(loaded),
            lambda sample: {"auxiliary": auxiliary(sample, name)},
            clips=clips,
        )

    files = (weights, TOKENISER)
    return declare(name, text, build, needs=(need(what), *map(vbench_files.need, files)), files=files)
