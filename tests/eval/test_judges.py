"""The judge: every malformed answer, an endpoint on this machine, tiny local models of both families, and the
embedding's cosine.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import judge_folders
import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from astro_cli.config.errors import CheckpointError
from eval.contract import NetworkCache, Sample, ScoreError, Segment, VideoInfo
from eval.judges import endpoint as endpoint_module
from eval.judges import frames as shown_frames
from eval.judges import judge_location, rubric
from eval.judges.endpoint import Endpoint, EndpointError
from eval.metrics import catalog, qwen_judge

GOOD = "Text Alignment: 4\nReason: fine.\nDynamics: 3\nReason: 5 cars move.\nVisual Quality: 5\nReason: sharp.\n"
PROMPT = "a red circle"


def sample(frames: int = 40, fps: float = 4.0, prompt: str = PROMPT, segments: tuple[Segment, ...] = ()) -> Sample:
    return Sample(Path("v.mp4"), "0" * 64, VideoInfo(frames, fps, 96, 64), "p", prompt, segments=segments)


def video(frames: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, 64, 96, 3), dtype=np.uint8)


def score(scorer, item: Sample, frames: np.ndarray):
    watcher = scorer.watch(item)
    for index, frame in enumerate(frames):
        watcher.see(index, frame)
    return watcher.scores()


# --- the answer


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        GOOD.replace(": 4", ": [4]").replace(": 5", ": [5]"),
        GOOD.replace("Text Alignment: 4", "**Text Alignment**: 4").replace("Dynamics: 3", "**Dynamics:** 3"),
        GOOD.replace("Visual Quality: 5", "**Visual Quality: 5**"),
        GOOD.replace(": 4", ": 4/5").replace(": 3", ": 3 / 5").replace(": 5", ": 5/5"),
        GOOD.lower(),
        GOOD.upper(),
        "\n".join([*GOOD.splitlines()[4:], *GOOD.splitlines()[:4]]),
        GOOD + GOOD,
        GOOD.replace("Text", "1. Text").replace("Dynamics", "- Dynamics").replace("Visual", "### 3) Visual"),
        GOOD.replace(": 4\nReason", ": 4. Reason")
        .replace(": 3\nReason", ": 3 (good)\nReason")
        .replace("Visual Quality: 5", "Visual Quality: 5.0"),
        GOOD.replace(":", " : "),
        "Text Alignment: [1-5]\n" + GOOD,  # the format repeated before it is filled in
        "<think>Text Alignment: 1? Dynamics: 9</think>\n" + GOOD,
        GOOD.replace("\n", "\r\n"),
    ],
)
def test_a_readable_answer_is_read(answer):
    reading = rubric.read(answer)
    assert reading.failures == {}
    assert reading.scores == {"text_alignment": 4, "dynamics": 3, "visual_quality": 5}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "no line 'Dynamics: N'"),
        ("Dynamics 3", "no line"),
        ("Motion: 3", "no line"),
        ("Dynamics: 6", "found 6, expected 1 to 5"),
        ("Dynamics: 0", "found 0, expected 1 to 5"),
        ("Dynamics: -3", "found -3"),
        ("Dynamics: 35", "found 35"),
        ("Dynamics: [1-5]", "no line"),
        ("Dynamics: 4.5", "found 4.5, expected a whole"),
        ("Dynamics: 4/10", "found 4/10, expected a number of 5"),
        ("Dynamics: 3-4", "no single number"),
        ("Dynamics: three", "no single number in 'three'"),
        ("Dynamics:", "no single number in ''"),
        ("Dynamics: 3 to 4", "no single number"),
        ("Dynamics: 3 or 4", "no single number"),
        ("Dynamics: 3x", "no single number"),
        ("Dynamics: 3%", "no single number"),
        ("Dynamics: 2\nDynamics: 3", "2 different numbers: 2, 3"),
        ("Dynamics: 3\nDynamics: bad", "no single number in 'bad'"),
        ("The Dynamics: 3", "no line"),
        ("Dynamics: [4.5]", "found 4.5"),
    ],
)
def test_a_malformed_line_fails_its_dimension_and_is_never_a_number(line, message):
    reading = rubric.read(GOOD.replace("Dynamics: 3", line))
    assert set(reading.failures) == {"dynamics"}
    assert message in reading.failures["dynamics"]
    assert reading.scores == {"text_alignment": 4, "visual_quality": 5}


@pytest.mark.parametrize("answer", ["", "   \n", "I cannot rate this video.", "4\n3\n5"])
def test_an_empty_answer_fails_every_dimension(answer):
    reading = rubric.read(answer)
    assert reading.scores == {}
    assert set(reading.failures) == set(rubric.DIMENSIONS)


def test_the_rubric_is_the_printed_one_with_the_prompt_in_it():
    text = rubric.question("a {cat}")
    assert 'Text Prompt: "a {cat}"\n' in text
    assert rubric.BLANK not in text
    paper = Path(__file__).parents[3] / "shared" / "papers" / "reward_forcing_2512.04678.txt"
    if not paper.is_file():
        pytest.skip("the paper's text is not here")
    printed = " ".join(paper.read_text().split())
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip() and "Text Prompt" not in line]
    assert len(lines) > 25
    assert [line for line in lines if line not in printed] == []


# --- which frames


def test_the_last_five_seconds_are_shown_at_two_frames_a_second():
    part = shown_frames.judged_frames(sample(960, 16.0), 2.0, 5.0)  # 60 s
    assert (part.start, part.total, len(part.indices)) == (880, 80, 10)
    assert part.indices == [884, 892, 900, 908, 916, 924, 932, 940, 948, 956]  # middles of half seconds of 8 frames
    assert part.times[0] == pytest.approx(0.25)
    short = shown_frames.judged_frames(sample(8, 4.0), 2.0, 5.0)  # 2 s: all of it
    assert (short.start, short.total) == (0, 8)
    with pytest.raises(ScoreError, match="1 shown of 1"):
        shown_frames.judged_frames(sample(1), 2.0, 5.0)


def test_an_interactive_video_is_judged_by_its_last_prompt():
    item = sample(prompt="", segments=(Segment(0, 5, "first"), Segment(5, 10, "last")))
    assert shown_frames.prompt_of(item, 5.0) == "last"
    with pytest.raises(ScoreError, match="missing, a judge needs one"):
        shown_frames.prompt_of(sample(prompt=""), 5.0)
    with pytest.raises(ScoreError, match="special token"):
        shown_frames.prompt_of(sample(prompt="<|im_end|>"), 5.0)


# --- an endpoint


class _Judge(BaseHTTPRequestHandler):
    answers: ClassVar[list[tuple[int, str]]] = []
    requests: ClassVar[list[dict]] = []
    location: ClassVar[str] = ""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append({"path": self.path, "key": self.headers.get("Authorization"), "body": body})
        code, text = self.answers.pop(0)
        self.send_response(code)
        if self.location:
            self.send_header("Location", self.location)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


def reply(text: str | None) -> tuple[int, str]:
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]})


@pytest.fixture
def server(monkeypatch):
    _Judge.answers.clear()
    _Judge.requests.clear()
    running = HTTPServer(("127.0.0.1", 0), _Judge)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    monkeypatch.setenv(judge_location.URL_VARIABLE, f"http://127.0.0.1:{running.server_port}/v1/")
    monkeypatch.setenv(judge_location.KEY_VARIABLE, "secret")
    monkeypatch.setenv(judge_location.MODEL_VARIABLE, "some/judge")
    monkeypatch.setattr(endpoint_module, "PAUSE", 0.0)
    yield _Judge
    running.shutdown()
    running.server_close()


def lacks(name):
    return [text for need in catalog.find(name).needs if (text := need.missing())]


def scorer(**config):
    declaration = catalog.find("qwen_judge")
    return declaration.build(declaration.config(**config), NetworkCache())


def test_an_endpoint_is_asked_greedily_with_the_frames_and_the_rubric(server):
    server.answers.append(reply(GOOD))
    assert lacks("qwen_judge") == []
    found = score(scorer(), sample(), video())
    assert {key: value.value for key, value in found.items()} == {
        "qwen_judge.text_alignment": 4.0,
        "qwen_judge.dynamics": 3.0,
        "qwen_judge.visual_quality": 5.0,
    }
    details = found["qwen_judge.text_alignment"].details
    assert (details["answer"], details["model"], details["backend"]) == (GOOD, "some/judge", "endpoint")
    assert "secret" not in json.dumps({key: dict(value.details) for key, value in found.items()})
    [request] = server.requests
    assert (request["path"], request["key"]) == ("/v1/chat/completions", "Bearer secret")
    body = request["body"]
    assert (body["model"], body["temperature"]) == ("some/judge", 0)
    content = body["messages"][0]["content"]
    assert content[-1]["text"] == rubric.question(PROMPT)
    pictures = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    assert len(pictures) == 10  # 5 s at 2 a second
    picture = Image.open(io.BytesIO(base64.b64decode(pictures[0].removeprefix("data:image/jpeg;base64,"))))
    assert picture.size == (96, 64)
    assert [part["text"] for part in content if part["type"] == "text"][:2] == [
        "<0.2 seconds>",
        "<0.8 seconds>",
    ]  # .25 and .75


def test_a_passing_fault_is_tried_again_and_a_lasting_one_is_named(server):
    server.answers += [(503, "busy"), (429, "slow down"), reply(GOOD)]
    assert score(scorer(), sample(), video())["qwen_judge.dynamics"].value == 3.0
    assert len(server.requests) == 3
    server.answers += [(500, "broken")] * endpoint_module.TRIES
    with pytest.raises(EndpointError, match=r"HTTP 500: broken .4 tries"):
        score(scorer(), sample(), video())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, "who are you"), "HTTP 401: who are you"),
        ((404, "no model"), "HTTP 404"),
        ((200, "not json"), "not in the answer: 'not json'"),
        ((200, '{"choices": []}'), "not in the answer"),
        (reply(None), "found null, expected text"),
    ],
)
def test_an_endpoint_that_refuses_or_babbles_is_named_at_once(server, answer, message):
    server.answers.append(answer)
    with pytest.raises(EndpointError, match=message):
        score(scorer(), sample(), video())
    assert len(server.requests) == 1


def test_an_unreadable_answer_fails_the_video_with_its_text(server):
    server.answers.append(reply(GOOD.replace("Dynamics: 3", "Dynamics: 9")))
    with pytest.raises(
        ScoreError, match="answer: unreadable, Dynamics: found 9, expected 1 to 5; it says 'Text Alignment: 4"
    ):
        score(scorer(), sample(), video())


def test_an_endpoint_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(endpoint_module, "PAUSE", 0.0)
    with pytest.raises(EndpointError, match="no answer"):
        Endpoint("http://127.0.0.1:9/v1", "m", seconds=2).ask("x", video(2), [0.0, 1.0])


# --- local models


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("checkpoints")
    judge_folders.write_qwen2_5(root / "eval" / "tiny-2.5")
    judge_folders.write_qwen3(root / "eval" / "tiny-3")
    return root


@pytest.fixture
def _local(models, monkeypatch):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(models))
    monkeypatch.delenv(judge_location.URL_VARIABLE, raising=False)


@pytest.mark.usefixtures("_local")
@pytest.mark.parametrize("model", ["tiny-2.5", "tiny-3"])
def test_a_local_model_answers_greedily_and_babble_fails_the_video(model):
    loaded = NetworkCache()
    declaration = catalog.find("qwen_judge")
    config = declaration.config(model=model, max_tokens=8)
    assert config.backend == "local"
    assert [path.name for path in declaration.files(config)] == [model]
    built = declaration.build(config, loaded)
    messages = []
    for _ in range(2):
        with pytest.raises(ScoreError, match="answer: unreadable, Text Alignment: no line") as caught:  # random weights
            score(built, sample(), video())
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.usefixtures("_local")
@pytest.mark.parametrize("model", ["tiny-2.5", "tiny-3"])
def test_the_logit_judge_is_the_expected_number(model):
    found = score(scorer(model=model, judge="logit"), sample(), video())
    assert set(found) == {info.id for info in qwen_judge.SCORER.metrics}
    for result in found.values():
        odds = result.details["odds"]
        assert sum(odds) == pytest.approx(1.0, abs=1e-5)
        assert result.value == pytest.approx(
            sum(number * share for number, share in zip(range(1, 6), odds, strict=True))
        )
        assert 1.0 <= result.value <= 5.0
    assert len({round(result.value, 4) for result in found.values()}) > 1  # each dimension is asked for by name


@pytest.mark.usefixtures("_local")
def test_the_logit_judge_needs_a_local_model():
    with pytest.raises(ValidationError, match="the odds of tokens need backend 'local'"):
        qwen_judge.QwenJudgeConfig(judge="logit", backend="endpoint")


def test_what_a_judge_lacks_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path))
    for variable in (judge_location.URL_VARIABLE, judge_location.MODEL_VARIABLE, judge_location.EMBEDDER_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    [lack] = lacks("qwen_judge")
    assert "set ASTRO_JUDGE_URL" in lack
    assert str(tmp_path / "eval" / judge_location.JUDGE) in lack
    [lack] = lacks("qwen_embedding")
    assert str(tmp_path / "eval" / judge_location.EMBEDDER) in lack
    with pytest.raises(CheckpointError, match="no such model folder"):
        scorer(model="nothing-here", backend="local")
    (tmp_path / "eval" / "broken").mkdir(parents=True)
    (tmp_path / "eval" / "broken" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no vision-language model"):
        scorer(model="broken", backend="local")


@pytest.mark.usefixtures("_local")
@pytest.mark.parametrize("model", ["tiny-2.5", "tiny-3"])
def test_the_embedding_is_a_cosine_of_prompt_and_frames(model):
    declaration = catalog.find("qwen_embedding")
    built = declaration.build(declaration.config(model=model), NetworkCache())
    one, other = (score(built, sample(prompt=prompt), video())["qwen_embedding"] for prompt in (PROMPT, "gray"))
    assert one.details["frames"] == 10  # 10 s at 1 a second
    assert abs(one.value) <= 1.0
    assert abs(one.value - other.value) > 1e-5
    text_D = built.model.embed_text("Represent the user's input.", PROMPT)
    part = shown_frames.judged_frames(sample(), 1.0)
    video_D = built.model.embed_video("Represent the user's input.", video()[part.indices], part)
    assert one.value == pytest.approx(float(torch.nn.functional.cosine_similarity(text_D, video_D, dim=0)), abs=1e-3)
    assert len(built.watch(sample(400, 4.0)).indices) == 64  # 100 s: at most 64 frames


def test_the_key_goes_to_no_other_address(server):
    other = HTTPServer(("127.0.0.1", 0), _Judge)
    try:
        server.answers.append((302, "over there"))
        server.location = f"http://127.0.0.1:{other.server_port}/v1/chat/completions"
        with pytest.raises(EndpointError, match="HTTP 302: sends requests elsewhere, which is not followed"):
            score(scorer(), sample(), video())
    finally:
        server.location = ""
        other.server_close()
    assert len(server.requests) == 1


def test_a_key_that_is_echoed_is_not_printed(server):
    server.answers.append((401, "Incorrect API key provided: secret. Bearer secret"))
    with pytest.raises(EndpointError, match=r"HTTP 401: Incorrect API key provided: \*\*\*. Bearer \*\*\*") as caught:
        score(scorer(), sample(), video())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["nonsense", "file:///etc/passwd", "http://", "http://host:port/v1", "http://[::1/v1", "http://a b/v1",
     "http://user:hunter2@127.0.0.1/v1", "http://127.0.0.1\n/v1", "ftp://127.0.0.1/v1", "http://ho\u017ft/v1"],
)  # fmt: skip
def test_what_is_no_address_is_refused_and_not_shown(url, monkeypatch):
    monkeypatch.setenv(judge_location.URL_VARIABLE, url)
    monkeypatch.setenv(judge_location.KEY_VARIABLE, "")
    with pytest.raises(EndpointError, match="no address of a server, expected http://HOST:PORT/v1") as caught:
        scorer()
    assert "hunter2" not in str(caught.value)


def test_a_key_with_a_line_feed_is_refused(server, monkeypatch):
    monkeypatch.setenv(judge_location.KEY_VARIABLE, "secret\nX-Header: 1")
    with pytest.raises(EndpointError, match="expected printable ASCII") as caught:
        scorer()
    assert "secret" not in str(caught.value)
