"""A vision-language model from a transformers folder on this machine: answers, odds of digits, embeddings.

Works with the models of transformers' auto classes (Qwen2.5-VL, Qwen3-VL and their like). Nothing is downloaded, and
code inside a model's folder never runs.
Dimensions: T frame, H, W pixel rows and columns, C colour, L token, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.video_utils import VideoMetadata

from astro_cli.config.errors import CheckpointError
from eval.judges.frames import JudgedFrames


class LocalModel:
    """Greedy and without sampling; a video is given as frames that were chosen already, and what part of it they
    are.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model.eval(), processor

    @torch.no_grad()
    def answer(self, text: str, frames_THWC: np.ndarray, part: JudgedFrames, max_tokens: int) -> str:
        """What the model says to a question about a clip."""
        inputs = self._inputs(self._chat(text), frames_THWC, part)
        plain = {"do_sample": False, "num_beams": 1, "temperature": None, "top_p": None, "top_k": None}
        ids_1L = self.model.generate(**inputs, max_new_tokens=max_tokens, **plain)
        return self.processor.tokenizer.decode(ids_1L[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    @torch.no_grad()
    def odds(self, text: str, start: str, words: list[str], frames_THWC: np.ndarray, part: JudgedFrames) -> Tensor:
        """Odds (len(words),) of each of `words` as the next token of an answer that begins with `start`; they sum to 1.

        Raises:
            CheckpointError: a word that is not one token.
        """
        inputs = self._inputs(self._chat(text) + start, frames_THWC, part)
        logits_L = self.model(**inputs).logits[0, -1].float()
        return logits_L[[self._single(word) for word in words]].softmax(0).cpu()

    @torch.no_grad()
    def embed_text(self, instruction: str, text: str) -> Tensor:
        """The last token's last hidden state (D,), of length 1."""
        return self._pooled(
            self.processor(text=[self._chat(text, instruction, video=False)], return_tensors="pt").to(self.model.device)
        )

    @torch.no_grad()
    def embed_video(self, instruction: str, frames_THWC: np.ndarray, part: JudgedFrames) -> Tensor:
        """As `embed_text`, of frames."""
        return self._pooled(self._inputs(self._chat("", instruction), frames_THWC, part))

    def _pooled(self, inputs: Any) -> Tensor:
        hidden_LD = self.model.model(**inputs).last_hidden_state[0]
        return torch.nn.functional.normalize(hidden_LD[-1].float(), dim=0).cpu()

    def _chat(self, text: str, system: str = "", *, video: bool = True) -> str:
        content = [*([{"type": "video"}] if video else []), *([{"type": "text", "text": text}] if text else [])]
        messages = [
            *([{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []),
            {"role": "user", "content": content},
        ]
        return self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def _inputs(self, chat: str, frames_THWC: np.ndarray, part: JudgedFrames) -> Any:
        metadata = VideoMetadata(
            total_num_frames=part.total, fps=part.fps, duration=part.total / part.fps, frames_indices=part.own
        )
        video_TCHW = torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(0, 3, 1, 2)
        inputs = self.processor(
            text=[chat], videos=[video_TCHW], video_metadata=[metadata], do_sample_frames=False, return_tensors="pt"
        )
        return inputs.to(self.model.device)

    def _single(self, word: str) -> int:
        ids = self.processor.tokenizer.encode(word, add_special_tokens=False)
        if len(ids) != 1:
            raise CheckpointError("tokenizer", word, f"is {len(ids)} tokens, the odds of a digit need one")
        return ids[0]


def load_local(folder: Path, dtype: torch.dtype = torch.bfloat16) -> LocalModel:
    """A model and its processor, spread over the GPUs where there are any.

    Raises:
        CheckpointError: no folder of a vision-language model, damaged, or weights that are no safetensors.
    """
    place = {"device_map": "auto"} if torch.cuda.is_available() else {}
    try:
        processor = AutoProcessor.from_pretrained(str(folder), local_files_only=True)
        model = AutoModelForImageTextToText.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, dtype=dtype, **place
        )
    except Exception as error:  # the library has no error of its own for damaged folders: it raises what it meets
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            folder, "", f"no vision-language model: {first}", hint="copy the model's whole folder, with its processor"
        ) from error
    return LocalModel(model, processor)
