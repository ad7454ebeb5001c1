"""HPSv3 and VideoAlign from tiny files in their released layouts: against transformers' own forward pass, and what must
hold of any weights.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import reward_folders as folders
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

from astro_cli.config.errors import CheckpointError, PromptError
from astro_cli.rewards import qwen2_vl_inputs as inputs
from astro_cli.rewards import scorer_places, templates, videoalign_files
from astro_cli.rewards.hpsv3 import best_mean, load_hpsv3
from astro_cli.rewards.videoalign import load_videoalign

CPU, PROMPTS = torch.device("cpu"), ["a red circle moves right", "a gray cat"]
CHAT = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou "
    "are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n{% for content in message['content'] %}{% if "
    "content['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif content['type'] == 'video' "
    "%}<|vision_start|><|video_pad|><|vision_end|>{% else %}"
    "{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt "
    "%}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("checkpoints")
    folders.write_hpsv3(root)
    folders.write_videoalign(root)
    return root


@pytest.fixture(autouse=True)
def _here(checkpoints, monkeypatch):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(checkpoints))


@pytest.fixture(scope="module")
def hpsv3(checkpoints):
    eval_folder = checkpoints / "eval"
    return load_hpsv3(
        CPU, torch.float32, weights=eval_folder / scorer_places.HPSV3, base=eval_folder / scorer_places.HPSV3_BASE
    )


@pytest.fixture(scope="module")
def align(checkpoints):
    eval_folder = checkpoints / "eval"
    return load_videoalign(
        CPU,
        torch.float32,
        folder=eval_folder / scorer_places.VIDEOALIGN,
        base=eval_folder / scorer_places.VIDEOALIGN_BASE,
    )


def clip(frames: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, 72, 128, 3), dtype=np.uint8)


def processor(tokenizer_folder: Path, tokens: list[str]) -> Qwen2VLProcessor:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    videos = Qwen2VLVideoProcessor(do_sample_frames=False, cap_pixels_per_frame=False)
    return Qwen2VLProcessor(Qwen2VLImageProcessor(), tokenizer, videos, chat_template=CHAT)


def chat(words: Qwen2VLProcessor, kind: str, text: str) -> str:
    content = [{"type": kind}, {"type": "text", "text": text}]
    return words.apply_chat_template([{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True)


@torch.no_grad()
def official(model, head, batch, specials: list[int], positions: str) -> torch.Tensor:
    """Head outputs (B, K, R) at the special tokens, by transformers' whole model; official positions given
    explicitly.
    """
    ids = batch["input_ids"]
    given = (
        {}
        if positions == "mrope"
        else {"position_ids": torch.arange(ids.shape[1]).view(1, 1, -1).expand(3, len(ids), -1)}
    )
    hidden = model(**batch, **given).last_hidden_state
    return head(hidden)[torch.isin(ids, torch.tensor(specials))].view(len(ids), len(specials), -1)


def test_hpsv3_is_transformers_own_pass_at_sequential_positions(checkpoints, hpsv3):
    base = checkpoints / "eval" / scorer_places.HPSV3_BASE
    model, words = folders.hpsv3_model(base), processor(base, folders.REWARD)
    frames, text = clip(3), templates.hpsv3_template().format(text_prompt=PROMPTS[0])
    # 72 x 128 to 200704 pixels is 14/3 as large: 336 and 597.3, up to the next multiple of 28: 616
    resized = [Image.fromarray(frame).resize((616, 336), Image.Resampling.BICUBIC) for frame in frames]
    batch = words(text=[chat(words, "image", text)] * 3, images=resized, return_tensors="pt", padding=True)
    assert hpsv3.tower.specials == words.tokenizer.convert_tokens_to_ids(folders.REWARD)
    wanted = {
        way: official(model.model, model.rm_head, batch, hpsv3.tower.specials, way)[:, 0, 0]
        for way in ("official", "mrope")
    }
    found = hpsv3.score(frames, PROMPTS[0])
    assert torch.allclose(found, wanted["official"], atol=2e-5)
    assert (found - wanted["mrope"]).abs().max() > 1e-3
    file = checkpoints / "eval" / scorer_places.HPSV3
    assert torch.allclose(
        load_hpsv3(CPU, torch.float32, "mrope", weights=file, base=base).score(frames, PROMPTS[0]),
        wanted["mrope"],
        atol=2e-5,
    )


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("adapter", [False, True])
def test_videoalign_is_pefts_own_pass_at_sequential_positions(tmp_path, monkeypatch, adapter, outputs):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path))
    folder = folders.write_videoalign(tmp_path, adapter=adapter, outputs=outputs)
    base = tmp_path / "eval" / scorer_places.VIDEOALIGN_BASE
    wrapped = folders.videoalign_model(base, outputs)[1].base_model.model
    words = processor(folder / "checkpoint-11352" / "tokenizer", folders.REWARDS)
    frames = clip(6)
    video = torch.from_numpy(frames).permute(0, 3, 1, 2)
    size = inputs.smart_size(
        72, 128, 128 * 784, 160 * 784
    )  # min_pixels of qwen-vl-utils, max_frame_pixels of the tiny settings
    resized = inputs.pictures.resize(
        video, list(size), inputs.pictures.InterpolationMode.BICUBIC, antialias=True
    ).float()
    text = folders.TEMPLATE.format(text_prompt=PROMPTS[0])
    batch = words(
        text=[chat(words, "video", text)], videos=[resized], return_tensors="pt", videos_kwargs={"do_rescale": True}
    )
    specials = words.tokenizer.convert_tokens_to_ids(folders.REWARDS)
    outs = {way: official(wrapped.model, wrapped.rm_head, batch, specials, way)[0] for way in ("official", "mrope")}
    wanted = {way: out.diagonal() if outputs == 3 else out[:, 0] for way, out in outs.items()}
    found = load_videoalign(CPU, torch.float32).raw([frames], PROMPTS[:1])[0]
    assert torch.allclose(found, wanted["official"], atol=2e-5)
    assert (found - wanted["mrope"]).abs().max() > 1e-3
    assert torch.allclose(
        load_videoalign(CPU, torch.float32, "mrope").raw([frames], PROMPTS[:1])[0], wanted["mrope"], atol=2e-5
    )


def test_vq_and_mq_do_not_see_the_prompt_that_follows_them(align):
    one, other = align.raw([clip()] * 2, PROMPTS)
    assert torch.allclose(one[:2], other[:2], atol=1e-6)
    assert abs(one[2] - other[2]) > 1e-3


def test_gray_scores_do_not_see_hue(align):
    # ITU-R 601: .2989 R + .587 G + .114 B, cut to an integer; each of these is 59
    red, green, blue_ish = (200, 0, 0), (0, 102, 0), (0, 83, 100)
    assert [int(0.2989 * r + 0.587 * g + 0.114 * b) for r, g, b in (red, green, blue_ish)] == [59, 59, 60]
    painted = []
    for colour in (red, green):
        frames = np.zeros((4, 72, 128, 3), np.uint8)
        for step in range(4):
            frames[step, 20:50, 10 + 20 * step : 40 + 20 * step] = colour
        painted.append(frames)
    gray = align.raw(painted, PROMPTS[:1] * 2, gray=True)
    assert torch.allclose(gray[0], gray[1], atol=1e-6)
    colour = align.raw(painted, PROMPTS[:1] * 2)
    assert (colour[0] - colour[1]).abs().min() > 1e-3
    assert (align.raw(painted[:1], PROMPTS[:1]) - gray[:1]).abs().max() > 1e-3


def test_a_score_does_not_depend_on_the_batch(align, hpsv3):
    clips, prompts = [clip(4, 1), clip(6, 2), clip(4, 3)], [*PROMPTS, PROMPTS[0]]
    together = align.raw(clips, prompts)
    alone = torch.cat([align.raw([each], [prompt]) for each, prompt in zip(clips, prompts, strict=True)])
    assert torch.allclose(together, alone, atol=1e-5)
    frames = clip(5)
    scores = hpsv3.score(frames, "x")
    assert torch.allclose(
        scores[::2], torch.cat([hpsv3.score(frames[row : row + 1], "x") for row in range(0, 5, 2)]), atol=1e-5
    )


def test_the_norm_is_the_checkpoints(align):
    raw = torch.tensor([[0.3, -0.2, 1.0], [2.3, 0.3, -3.0]])
    # (2.3 - .3) / 2, (.3 + .2) / .5, (-3 - 1) / 4
    assert torch.allclose(align.normalise(raw), torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, -1.0]]), atol=1e-6)


def test_best_mean_takes_the_floor_of_the_share():
    scores = torch.tensor([1.0, 9.0, 5.0, 7.0, 3.0, 2.0, 8.0, 4.0, 6.0])
    assert best_mean(scores).item() == pytest.approx((9 + 8) / 2)  # int(.3 x 9) = 2
    assert best_mean(scores[:2]).item() == 9.0  # at least one
    assert best_mean(scores, 1.0).item() == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("total", "fps", "count"),
    [(81, 16.0, 10), (176, 16.0, 22), (16, 16.0, 4), (3, 16.0, 2), (240, 24.0, 20), (5, 16.0, 4)],
)
def test_frames_are_sampled_as_released(total, fps, count):
    # 81 / 16 x 2 = 10.1 -> 10; 11 s -> 22; at least 4; 10 s -> 20
    indices = inputs.frame_indices(total, fps, 2.0)
    assert len(indices) == count
    assert (indices[0], indices[-1]) == (0, total - 1)
    if total == 81:
        assert indices == [0, 9, 18, 27, 36, 44, 53, 62, 71, 80]  # 8.89 k, rounded


def test_sizes_are_qwens():
    assert inputs.smart_size(480, 832, 256 * 784, 256 * 784) == (336, 588)  # the published input of both models
    assert inputs.smart_size(480, 832, 128 * 784, 256 * 784) == (336, 588)
    rows, columns = inputs.smart_size(72, 128, 128 * 784, 256 * 784)
    assert rows % 28 == columns % 28 == 0
    assert rows * columns >= 128 * 784
    with pytest.raises(inputs.PictureError, match="200 times"):
        inputs.smart_size(10, 2001, 784, 7840)


@pytest.mark.parametrize("text", ["<|VQ_reward|>", "a <|Reward|> b", "<|im_end|>", "cat <|video_pad|>"])
def test_a_prompt_with_a_special_token_is_refused(align, hpsv3, text):
    with pytest.raises(PromptError, match=r"<\|"):
        align.raw([clip()], [text])
    with pytest.raises(PromptError, match=r"<\|"):
        hpsv3.score(clip(1), text)


def test_braces_in_a_prompt_are_plain_text(align):
    assert "{text_prompt} {0}" in templates.fill(align.template, "{text_prompt} {0}")


def test_hpsv3_template_is_the_released_one():
    import hashlib

    text = templates.hpsv3_template()
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "f6ee57479d4e9eee76b49c00dc962e1e696a5a2b3cc32cebd9b1fa76fe27502c"
    )  # of hpsv3 1.0.0
    templates.check_template(text, templates.HPSV3_TOKENS, Path("hpsv3.txt"))


@pytest.mark.parametrize(("content", "message"), [
    ("x = 1", "DETAILED_PROMPT_WITH_SPECIAL_TOKEN"), ("not python (", "no readable template"),
    ("DETAILED_PROMPT_WITH_SPECIAL_TOKEN = 'no tokens {text_prompt}'", "not the template"),
    (f"DETAILED_PROMPT_WITH_SPECIAL_TOKEN = {folders.TEMPLATE.replace('{text_prompt}', '')!r}", "not the template"),
    ("DETAILED_PROMPT_WITH_SPECIAL_TOKEN = __import__('os').getcwd()", "missing"),
])  # fmt: skip
def test_a_wrong_template_is_refused_and_none_is_run(tmp_path, content, message):
    path = tmp_path / "prompt_template.py"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=message):
        templates.videoalign_template(path)


def copied(checkpoints: Path, tmp_path: Path, monkeypatch) -> Path:
    shutil.copytree(checkpoints / "eval", tmp_path / "eval")
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path))
    return tmp_path / "eval"


def changed(file: Path, change) -> None:
    state = load_file(file)
    change(state)
    save_file(state, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("rm_head.3.bias"), "1 missing .first: rm_head.3.bias"),
        (lambda state: state.pop("lm_head.weight"), "lm_head.weight: missing"),
        (
            lambda state: state.update({"rm_head.0.weight": torch.zeros(8, 8)}),
            r"another size: rm_head.0.weight is \(8, 8\), expected \(1024, 32\)",
        ),
        (
            lambda state: state.update({"model.layers.9.x": torch.zeros(2)}),
            r"1 unexpected .first: model.language_model.layers.9.x",
        ),
        (
            lambda state: state["model.norm.weight"].fill_(math.nan),
            r"model.language_model.norm.weight: \d+ of its \d+ numbers are NaN or infinite",
        ),
    ],
)
def test_a_wrong_hpsv3_file_is_refused_with_its_key(checkpoints, tmp_path, monkeypatch, change, message):
    changed(copied(checkpoints, tmp_path, monkeypatch) / "HPSv3" / "HPSv3.safetensors", change)
    with pytest.raises(CheckpointError, match=message):
        load_hpsv3(CPU, torch.float32)


def test_hpsv3_is_read_below_model_too_and_from_new_names(checkpoints, tmp_path, monkeypatch, hpsv3):
    file = copied(checkpoints, tmp_path, monkeypatch) / "HPSv3" / "HPSv3.safetensors"
    nested = tmp_path / "nested.pth"
    torch.save({"model": load_file(file)}, nested)
    wanted = hpsv3.score(clip(1), "x")
    base = tmp_path / "eval" / scorer_places.HPSV3_BASE
    assert torch.allclose(
        load_hpsv3(CPU, torch.float32, weights=nested, base=base).score(clip(1), "x"), wanted, atol=1e-5
    )
    model = folders.hpsv3_model(base)
    save_file({key: value.clone() for key, value in model.state_dict().items()}, file)
    assert torch.allclose(load_hpsv3(CPU, torch.float32).score(clip(1), "x"), wanted, atol=1e-5)


def test_the_head_stays_in_float32_and_the_rest_does_not(checkpoints):
    scorer = load_hpsv3(CPU)
    assert {parameter.dtype for parameter in scorer.tower.rm_head.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in scorer.tower.model.parameters()} == {torch.bfloat16}
    assert scorer.score(clip(1), "x").dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "lack"),
    [
        ("HPSv3/HPSv3.safetensors", "HPSv3.safetensors of MizzenAI/HPSv3"),
        ("Qwen2-VL-7B-Instruct/config.json", "config.json of Qwen/Qwen2-VL-7B-Instruct"),
        ("Qwen2-VL-7B-Instruct/tokenizer.json", "tokenizer.json"),
    ],
)
def test_what_hpsv3_lacks_is_named_with_its_place(checkpoints, tmp_path, monkeypatch, name, lack):
    folder = copied(checkpoints, tmp_path, monkeypatch)
    assert scorer_places.missing_hpsv3() == ""
    (folder / name).unlink()
    assert lack in scorer_places.missing_hpsv3()
    assert str(tmp_path) in scorer_places.missing_hpsv3()
    with pytest.raises(CheckpointError, match="hpsv3: not here"):
        load_hpsv3(CPU)


@pytest.mark.parametrize(
    ("name", "lack"),
    [
        ("VideoReward/model_config.json", "model_config.json"),
        ("VideoReward/prompt_template.py", "prompt_template.py of the VideoAlign code"),
        ("VideoReward/checkpoint-11352", "checkpoint-"),
        ("Qwen2-VL-2B-Instruct/config.json", "config.json of Qwen/Qwen2-VL-2B-Instruct"),
    ],
)
def test_what_videoalign_lacks_is_named_with_its_place(checkpoints, tmp_path, monkeypatch, name, lack):
    path = copied(checkpoints, tmp_path, monkeypatch) / name
    assert scorer_places.missing_videoalign() == ""
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert lack in scorer_places.missing_videoalign()
    with pytest.raises(CheckpointError, match="videoalign: not here"):
        load_videoalign(CPU)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_template_type": "simple"}, "prompt_template_type: found 'simple', expected 'detailed_special'"),
        ({"sample_type": "multi_pts"}, "sample_type: found 'multi_pts', expected 'uniform'"),
        ({"num_frames": 8}, "num_frames: found 8, expected null"),
        ({"fps": 0}, "fps: found 0, expected a number above 0"),
        ({"fps": "2"}, "fps: found '2', expected a number"),
    ],
)
def test_settings_that_are_not_implemented_are_refused(tmp_path, changes, message):
    folders.write_settings(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=message):
        videoalign_files.read_settings(tmp_path)


def test_settings_that_are_left_out_have_the_documented_values(tmp_path):
    (tmp_path / "model_config.json").write_text("{}")
    settings = videoalign_files.read_settings(tmp_path)
    assert settings.norm == ((3.6757, 2.2476), (1.1646, 1.3811), (2.8105, 2.5121))
    assert (settings.fps, settings.max_pixels, settings.outputs, settings.scale) == (2.0, 200704, 1, 2.0)


def test_a_pickle_that_would_run_code_is_refused(checkpoints, tmp_path, monkeypatch):
    step = copied(checkpoints, tmp_path, monkeypatch) / "VideoReward" / "checkpoint-11352"

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"base_model.model.x": Trap()}, step / "model.pth")
    with pytest.raises(CheckpointError, match="refused, nothing of it ran"):
        load_videoalign(CPU)
    assert not (tmp_path / "ran").exists()


def test_half_an_adapter_and_an_incomplete_layout_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path))
    step = folders.write_videoalign(tmp_path, adapter=True) / "checkpoint-11352"
    changed(step / "adapter_model.safetensors", lambda state: state.pop(next(key for key in state if "lora_A" in key)))
    with pytest.raises(CheckpointError, match="half an adapter pair: found lora_B alone"):
        load_videoalign(CPU)
    (step / "non_lora_state_dict.pth").unlink()
    with pytest.raises(CheckpointError, match=r"non_lora_state_dict.pth: missing: expected model.pth, or"):
        load_videoalign(CPU)


def test_the_newest_checkpoint_and_the_base_models_words_are_taken(checkpoints, tmp_path, monkeypatch, align):
    folder = copied(checkpoints, tmp_path, monkeypatch) / "VideoReward"
    shutil.rmtree(folder / "checkpoint-11352" / "tokenizer")
    (folder / "checkpoint-900").mkdir()
    assert scorer_places.videoalign_step(folder) == folder / "checkpoint-11352"
    assert torch.allclose(
        load_videoalign(CPU, torch.float32).raw([clip()], PROMPTS[:1]), align.raw([clip()], PROMPTS[:1]), atol=1e-5
    )


def test_a_tokenizer_of_another_model_is_refused(checkpoints, tmp_path, monkeypatch):
    folder = copied(checkpoints, tmp_path, monkeypatch) / "Qwen2-VL-7B-Instruct"
    table = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(table | {"image_token_id": 5}))
    with pytest.raises(CheckpointError, match=r"image_token_id: is 5, the tokenizer's <.image_pad.> is"):
        load_hpsv3(CPU)
    (folder / "config.json").write_text(json.dumps(table | {"model_type": "llama"}))
    with pytest.raises(CheckpointError, match="found a llama, expected qwen2_vl"):
        load_hpsv3(CPU)
