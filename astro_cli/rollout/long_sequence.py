"""A batch of long videos made chunk after chunk, one chunk per training step, with one change of prompt on the way.

    chunk 0      `chunk` new frames
    chunk k      the last `overlap` frames before it, and `chunk - overlap` new ones

Teacher and critic see a chunk as a clip of its own: its first frame is encoded again as the image it shows. The cache,
the newest latents and the text stay from step to step; nothing else of the past does, so time and memory of a step do
not grow with the video. The state goes into checkpoints.
Source: LongLive (arXiv 2509.22622), streaming long tuning; its released code. Frames are latent frames.
Dimensions: B video, F latent frame, C channel, H, W latent rows and columns; M text token, D its width.

**Deviations**: keys and values of earlier chunks are detached (in the released code they are because a critic's step
rewrites them). The recache is that of `switching`, with the sink kept; the released trainer zeroes a sink that the
recached frames do not hold. A prompt may switch at every chunk but the first; the released list leaves out the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from astro_cli.config.errors import StreamError
from astro_cli.models.backbone import Backbone
from astro_cli.models.wan.transformer import CausalWan, TextStates
from astro_cli.rollout.engine import Streamer, StreamSpec
from astro_cli.rollout.reencoding import image_latent
from astro_cli.rollout.switching import SwitchRule

STREAM = "stream."  # of its tensors' names in a state


@dataclass(frozen=True)
class ChunkPlan:
    """How long videos are cut: the longest length, the frames of a chunk, and how many of them are old."""

    frames: int
    chunk: int
    overlap: int

    @property
    def new(self) -> int:
        """New frames of every chunk but the first."""
        return self.chunk - self.overlap

    @property
    def end(self) -> int:
        """Frames of a whole video: as many chunks as fit."""
        return self.chunk + (self.frames - self.chunk) // self.new * self.new

    def starts(self) -> list[int]:
        """First new frame of each chunk."""
        return [0, *range(self.chunk, self.end, self.new)]


@dataclass(frozen=True)
class VideoScript:
    """What B videos show: noise seeds, the first and the second prompt's states, and the frame of the switch."""

    seeds: list[int]
    text_BMD: tuple[torch.Tensor, torch.Tensor]
    switch: int
    rule: SwitchRule = field(default_factory=SwitchRule)


@dataclass(frozen=True)
class Chunk:
    """One chunk as training sees it.

    Attributes:
        window_BFCHW: `chunk` frames, the new ones last; only these carry gradients.
        new: how many are new.
        start: the first new frame's number in the video.
        history_BFCHW: the video's own latents before the new frames, as many as the decoder needs.
    """

    window_BFCHW: torch.Tensor
    new: int
    start: int
    history_BFCHW: torch.Tensor

    @property
    def fresh(self) -> slice:
        """The new frames of the window."""
        return slice(self.window_BFCHW.shape[1] - self.new, None)


class LongSequence:
    """B videos on their way.

    Attributes:
        chunk: the newest one without gradients, None before the first; part of the state.
    """

    def __init__(
        self, student: CausalWan, backbone: Backbone, spec: StreamSpec, plan: ChunkPlan, script: VideoScript
    ) -> None:
        self.student, self.backbone, self.plan, self.script = student, backbone, plan, script
        with torch.no_grad():
            text = student.encode_text(script.text_BMD[0])
            self.streamer = Streamer(student, text, script.seeds, spec, plan.end)
        self.tail_BFCHW = torch.empty(len(script.seeds), 0, *spec.latent_shape, device=student.device)
        self.chunk: Chunk | None = None

    @property
    def batch(self) -> int:
        return len(self.script.seeds)

    @property
    def start(self) -> int:
        """Frames made."""
        return self.streamer.frame

    @property
    def done(self) -> bool:
        return self.start >= self.plan.end

    @property
    def text_BMD(self) -> torch.Tensor:
        """States of the prompt of the next chunk."""
        return self.text_at(self.start)

    def text_at(self, frame: int) -> torch.Tensor:
        """States of the prompt of the chunk whose first new frame this is."""
        return self.script.text_BMD[frame >= self.script.switch]

    @torch.no_grad()
    def enter(self) -> None:
        """To be called before each chunk: where the prompt switches, the cached past is made anew under the second."""
        if self.start == self.script.switch:
            self.streamer.switch(self.student.encode_text(self.text_BMD), self.script.rule)

    def next_chunk(self, exit_step: int, *, gradient: bool) -> Chunk:
        """Make the next chunk, all blocks stopped at one step, under the student's weights of now."""
        start, history = self.start, self.tail_BFCHW
        with torch.set_grad_enabled(gradient):
            self.streamer.renew_text()
            new = self.plan.new if start else self.plan.chunk
            x0 = self.streamer.next_chunk(new, exit_step, gradient=gradient)
            window = torch.cat((self._lead(), x0), 1)
        self.streamer.text = _detached(self.streamer.text)
        self.chunk = Chunk(window.detach(), new, start, history)
        reach = self.backbone.decoder().reach
        kept = self.start if reach is None else self.plan.overlap + reach
        self.tail_BFCHW = torch.cat((history, x0.detach()), 1)[:, -kept:]
        return Chunk(window, new, start, history)

    @torch.no_grad()
    def _lead(self) -> torch.Tensor:
        """The chunk's old frames, the first as an image; none before the first chunk."""
        old = self.tail_BFCHW[:, self.tail_BFCHW.shape[1] - self.plan.overlap :]
        if not self.tail_BFCHW.shape[1]:
            return old
        shown = self.tail_BFCHW[:, : self.tail_BFCHW.shape[1] - self.plan.overlap + 1]
        with torch.autocast(self.student.device.type, enabled=False):  # the codec keeps its own precision
            first = image_latent(self.backbone, shown)
        return torch.cat((first, old[:, 1:]), 1)

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that the next chunks depend on but weights and script, copied to the CPU."""
        tensors = {"tail": self.tail_BFCHW}
        if self.chunk is not None:
            place = torch.tensor([self.chunk.new, self.chunk.start])
            tensors |= {"window": self.chunk.window_BFCHW, "history": self.chunk.history_BFCHW, "chunk": place}
        stream = {f"{STREAM}{name}": value for name, value in self.streamer.state().items()}
        return stream | {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}

    @classmethod
    def load(
        cls,
        student: CausalWan,
        backbone: Backbone,
        spec: StreamSpec,
        plan: ChunkPlan,
        script: VideoScript,
        state: Mapping[str, torch.Tensor],
    ) -> LongSequence:
        """The sequence that `state` was taken from.

        Raises:
            StreamError: a tensor is missing or of another network's shape, or the stream had another spec.
        """
        if "tail" not in state:
            raise StreamError("sequence", "tail", "missing in the saved sequence", hint="is the checkpoint whole?")
        loaded = cls(student, backbone, spec, plan, script)
        parts = {name.removeprefix(STREAM): value for name, value in state.items() if name.startswith(STREAM)}
        loaded.streamer = Streamer.load(student, spec, parts)
        loaded.tail_BFCHW = state["tail"].to(student.device)
        if "chunk" in state:
            window, history = state["window"].to(student.device), state["history"].to(student.device)
            new, start = state["chunk"].tolist()
            loaded.chunk = Chunk(window, new, start, history)
        return loaded


def _detached(text: TextStates) -> TextStates:
    layers = []
    for layer in text.layers:
        layers.append(tuple(part.detach() for part in layer))
    return TextStates(layers, text.source_BMD, text.folded)
