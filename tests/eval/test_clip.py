"""CLIP, Long-CLIP and the aesthetic head on tiny random weights in their released layouts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from astro_cli.config.errors import CheckpointError
from eval.contract import NetworkCache, ScoreError, Segment
from eval.metrics import aesthetic, clip, long_clip
from eval.networks import words
from eval.networks.clip import load, merge_tables
from eval.networks.clip_names import FORMS
from eval.networks.pictures import clip_input
from tests.tiny_networks import FEATURES, clip_state, long_clip_state, put, sample_of, show, video

LONG_PROMPT = "a dog runs over the wet grass " * 20  # 140 words


def clip_scorer(folder: Path, **config):
    put(clip_state(), folder / "clip" / "ViT-L-14.pt")
    return clip.SCORER.build(clip.ClipConfig(**config), NetworkCache())


def two_table_text(state, tokens):
    """Long-CLIP's released encode_text, written plainly: both tables under complementary masks, one block,
    QuickGELU.
    """
    first, second = torch.zeros(248, 1), torch.zeros(248, 1)
    first[:20], second[20:] = 1, 1
    x = (
        state["token_embedding.weight"][tokens]
        + state["positional_embedding"] * first
        + state["positional_embedding_res"] * second
    )

    def norm(x, name):
        return F.layer_norm(x, (64,), state[f"{name}.weight"], state[f"{name}.bias"])

    block = "transformer.resblocks.0"
    q, k, v = F.linear(
        norm(x, f"{block}.ln_1"), state[f"{block}.attn.in_proj_weight"], state[f"{block}.attn.in_proj_bias"]
    ).chunk(3, dim=-1)
    attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    x = x + F.linear(attended, state[f"{block}.attn.out_proj.weight"], state[f"{block}.attn.out_proj.bias"])
    h = F.linear(norm(x, f"{block}.ln_2"), state[f"{block}.mlp.c_fc.weight"], state[f"{block}.mlp.c_fc.bias"])
    x = x + F.linear(
        h * torch.sigmoid(1.702 * h), state[f"{block}.mlp.c_proj.weight"], state[f"{block}.mlp.c_proj.bias"]
    )
    x = norm(x, "ln_final")[torch.arange(len(tokens)), tokens.argmax(-1)]
    return F.normalize(x @ state["text_projection"], dim=-1)


def test_long_clip_is_its_two_table_reference(tmp_path):
    state = long_clip_state()
    tower = load(put(state, tmp_path / "longclip-L.pt"), FORMS["longclip-L"])
    prompts = ["a cat", LONG_PROMPT]
    tokens = words.tokenize(prompts, 248, "refuse", "x").tokens_BM
    assert (tokens[1] != 0).sum() == 142  # both tables are read
    features = tower.texts(prompts, "refuse", "x").features_MD
    torch.testing.assert_close(features, two_table_text(state, tokens), rtol=0, atol=1e-5)
    # through the same blocks, with the two tables added under their masks, the difference is 0
    model, above = tower.model, (torch.arange(248) >= 20)[:, None]
    x = (
        model.token_embedding(tokens)
        + state["positional_embedding"] * ~above
        + state["positional_embedding_res"] * above
    )
    x = (
        model.ln_final(model.transformer(x, attn_mask=model.attn_mask))[torch.arange(2), tokens.argmax(-1)]
        @ model.text_projection
    )
    assert torch.equal(F.normalize(x, dim=-1), features)
    # the merged table itself is equal to the last bit, and without the merge the long prompt is another one
    mask = torch.arange(248)[:, None] < 20
    both = state["positional_embedding"] * mask + state["positional_embedding_res"] * ~mask
    assert torch.equal(merge_tables(state)["positional_embedding"], both)
    same = state | {"positional_embedding_res": state["positional_embedding"]}
    other = load(put(same, tmp_path / "one.pt"), FORMS["longclip-L"]).texts(prompts, "refuse", "x").features_MD
    assert (other[1] - features[1]).abs().max() > 1e-3
    torch.testing.assert_close(other[0], features[0], rtol=0, atol=0)  # "a cat" reads the first 4 positions only


def test_every_container_gives_the_same_tower(tmp_path):
    state = clip_state()
    put(state, tmp_path / "plain.pt")
    put(state, tmp_path / "nested.pt", nest="state_dict")
    save_file(state, tmp_path / "x.safetensors")
    archive(state, tmp_path / "jit.pt")
    frames = video(3)
    loaded = [load(tmp_path / name, FORMS["ViT-L-14"]) for name in ("plain.pt", "nested.pt", "x.safetensors", "jit.pt")]
    first = loaded[0].images(frames)
    assert first.shape == (3, FEATURES)
    torch.testing.assert_close(first.norm(dim=-1), torch.ones(3))
    for tower in loaded[1:]:
        assert torch.equal(tower.images(frames), first)
        assert torch.equal(
            tower.texts(["a cat"], "cut", "x").features_MD, loaded[0].texts(["a cat"], "cut", "x").features_MD
        )


def archive(state, path):
    """A TorchScript archive with OpenAI's names and its three numbers beside them."""

    def module_of(tree):
        module = torch.nn.Module()
        for name, value in tree.items():
            if isinstance(value, dict):
                module.add_module(name, module_of(value))
            else:
                module.register_buffer(name, value)
        return module

    tree: dict = {}
    for name, value in (
        state | {name: torch.tensor(7) for name in ("input_resolution", "context_length", "vocab_size")}
    ).items():
        *folders, last = name.split(".")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = value
    torch.jit.save(torch.jit.script(module_of(tree)), str(path))


def test_open_clip_reads_the_archive_alike(tmp_path):
    import open_clip

    state = clip_state()
    archive(state, tmp_path / "jit.pt")
    reference = open_clip.load_openai_model(str(tmp_path / "jit.pt"), precision="fp32", device="cpu")
    ours = load(tmp_path / "jit.pt", FORMS["ViT-L-14"])
    frames = video(2)
    with torch.no_grad():
        theirs = F.normalize(reference.encode_image(clip_input(frames, 28, "pil")), dim=-1)
    torch.testing.assert_close(
        ours.images(frames), theirs, rtol=0, atol=2e-3
    )  # open_clip rounds these float32 weights to float16


@pytest.mark.parametrize(
    ("state", "form", "key", "text"),
    [
        (clip_state(patch=16), "ViT-L-14", "visual.conv1.weight", "patches of 16 pixels, expected 14"),
        (clip_state(), "longclip-L", "positional_embedding", "77 text positions, expected 248"),
        (long_clip_state(), "ViT-L-14", "positional_embedding", "248 text positions, expected 77"),
        (
            {"weight": torch.zeros(1, 768), "bias": torch.zeros(1)},
            "ViT-L-14",
            "visual.conv1.weight",
            "found bias, weight",
        ),
        (
            {k: v for k, v in clip_state().items() if k != "ln_final.bias"},
            "ViT-L-14",
            "",
            "1 missing (first: ln_final.bias)",
        ),
    ],
)
def test_another_checkpoint_is_refused(tmp_path, state, form, key, text):
    with pytest.raises(CheckpointError) as caught:
        load(put(state, tmp_path / "x.pt"), FORMS[form])
    assert caught.value.key == key
    assert text in caught.value.what


def test_nothing_is_unpickled(tmp_path):
    torch.save({"visual.proj": print}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="refused"):
        load(tmp_path / "x.pt", FORMS["ViT-L-14"])


def test_segments_are_scored_against_their_own_prompt(checkpoints):
    scorer = clip_scorer(checkpoints, rate=2.0)
    frames = video(17)
    parts = (
        Segment(0.0, 1.0, "a cat"),
        Segment(1.0, 2.5, "a dog"),
    )  # 8 fps: frames 0-7 and 8-16 (the video ends at 2.125 s)
    scores = show(scorer.watch(sample_of(frames, segments=parts)), frames)
    tower = scorer.tower
    images, text = tower.images(frames), tower.texts(["a cat", "a dog"], "cut", "x").features_MD
    # rate 2: slices of 0.5 s with middles 0.25 and 0.75 s: frames 2 and 6; then 1.125 s in 2 slices, middles 1.28 and
    # 1.84 s: frames 10 and 14
    first, second = (100 * (images[chosen] @ text[k]).mean().item() for k, chosen in enumerate(([2, 6], [10, 14])))
    assert scores["clip.segment_1"].value == pytest.approx(first, abs=1e-4)
    assert scores["clip.segment_2"].value == pytest.approx(second, abs=1e-4)
    assert scores["clip"].value == pytest.approx((first + second) / 2, abs=1e-4)
    assert scores["clip.segment_3"].value is None
    noted = scores["clip"].details["segments"]
    assert [part["frames"] for part in noted] == [[2, 6], [10, 14]]
    assert [part["tokens"] for part in noted] == [4, 4]
    assert set(scores) == {info.id for info in clip.SCORER.metrics}


def test_one_prompt_is_scored_in_windows(checkpoints):
    scorer = clip_scorer(checkpoints, segment_seconds=1.0, rate=1.0)
    frames = video(17)  # 2.125 s: two windows, the rest of an eighth belongs to the second
    noted = show(scorer.watch(sample_of(frames)), frames)["clip"].details["segments"]
    assert [(part["start"], part["end"], part["frames"]) for part in noted] == [(0.0, 1.0, [4]), (1.0, 2.125, [12])]


def test_a_segment_after_the_end_is_an_error(checkpoints):
    parts = (Segment(0.0, 10.0, "a cat"), Segment(10.0, 20.0, "a dog"))
    with pytest.raises(ScoreError, match=r"begins at 10 s, the video ends at 2\.125 s"):
        clip_scorer(checkpoints).watch(sample_of(video(17), segments=parts))


def test_long_prompts_are_cut_and_recorded_or_refused(checkpoints):
    frames = video(8)
    scores = show(clip_scorer(checkpoints).watch(sample_of(frames, prompt=LONG_PROMPT)), frames)
    assert scores["clip"].details["segments"][0]["cut"] is True
    assert scores["clip"].details["segments"][0]["tokens"] == 142
    tokens = words.tokenize([LONG_PROMPT], 77, "cut", "x").tokens_BM
    assert tokens[0, -1] == 49407  # the end mark stays
    with pytest.raises(ScoreError, match="142 tokens, this text tower reads 77"):
        clip_scorer(checkpoints, too_long="refuse").watch(sample_of(frames, prompt=LONG_PROMPT))
    with pytest.raises(ScoreError, match="1 of 1 prompts are empty"):
        clip_scorer(checkpoints).watch(sample_of(frames, prompt=" "))


def test_a_cut_prompt_is_said_once(capsys):
    prompt = " ".join(f"w{number}" for number in range(60))  # a token for w, one or two for the number
    for _ in range(2):
        words.tokenize([prompt, "a cat"], 77, "cut", "x")
    said = capsys.readouterr().err
    (line,) = said.splitlines()
    count = words.tokenize([prompt], 77, "cut", "x").counts[0]
    assert line.startswith(f"warning: prompt: {count} tokens, the text tower reads 77; kept up to '... ")
    kept, dropped = line.split("kept up to '... ")[1].split("', dropped from '")
    assert (kept + dropped.removesuffix(" ...'")).replace(" ", "") in prompt.replace(" ", "")


def test_long_clip_scores_what_clip_would_cut(checkpoints):
    put(long_clip_state(), checkpoints / "longclip" / "longclip-L.pt")
    scorer = long_clip.SCORER.build(long_clip.LongClipConfig(), NetworkCache())
    frames = video(8)
    scores = show(scorer.watch(sample_of(frames, prompt=LONG_PROMPT)), frames)
    assert scores["long_clip"].details["segments"][0]["cut"] is False
    other = show(scorer.watch(sample_of(frames, prompt=LONG_PROMPT + " at night")), frames)
    assert other["long_clip"].value != scores["long_clip"].value  # the end of the prompt counts
    with pytest.raises(ScoreError, match="reads 248"):
        scorer.watch(sample_of(frames, prompt=LONG_PROMPT * 2))


def test_aesthetic_is_the_head_on_normalised_features(checkpoints):
    put(clip_state(), checkpoints / "clip" / "ViT-L-14.pt")
    head = {"weight": torch.linspace(-1, 1, FEATURES)[None], "bias": torch.tensor([5.0])}
    put(head, checkpoints / "aesthetic" / "sa_0_4_vit_l_14_linear.pth")
    loaded = NetworkCache()
    scorer = aesthetic.SCORER.build(aesthetic.AestheticConfig(), loaded)
    frames = video(5)
    scores = show(scorer.watch(sample_of(frames)), frames)
    expected = (
        loaded.get(("clip", checkpoints / "clip" / "ViT-L-14.pt"), pytest.fail).images(frames) @ head["weight"][0] + 5
    )
    assert scores["aesthetic"].value == pytest.approx(expected.mean().item(), abs=1e-5)
    assert scores["aesthetic.fraction"].value == pytest.approx(expected.mean().item() / 10, abs=1e-6)
    assert np.allclose(scores["aesthetic"].details["frames"], expected.numpy(), atol=1e-5)


def test_an_aesthetic_head_of_another_width_is_refused(checkpoints):
    put(clip_state(), checkpoints / "clip" / "ViT-L-14.pt")
    put(
        {"weight": torch.zeros(1, 512), "bias": torch.zeros(1)},
        checkpoints / "aesthetic" / "sa_0_4_vit_l_14_linear.pth",
    )
    with pytest.raises(CheckpointError, match=r"weight is \(1, 512\), expected \(1, 16\)"):
        aesthetic.SCORER.build(aesthetic.AestheticConfig(), NetworkCache())


def lacking(module):
    return [text for need in module.SCORER.needs if (text := need.missing())]


def test_missing_weights_say_where_they_belong(checkpoints):
    (line,) = lacking(long_clip)
    assert "Long-CLIP-L" in line
    assert str(checkpoints / "longclip" / "longclip-L.pt") in line
    assert len(lacking(aesthetic)) == 2
    put(clip_state(), checkpoints / "clip" / "ViT-L-14.pt")
    assert lacking(clip) == []
    with pytest.raises(CheckpointError, match=r"ViT-B-32\.pt"):
        clip.SCORER.build(clip.ClipConfig(model="ViT-B-32"), NetworkCache())


def test_vbench_resizing_is_vbenchs(tmp_path):
    utils = pytest.importorskip("vbench.utils", reason="the vbench package is not installed")
    frames = video(2, 40, 72)
    theirs = utils.clip_transform(28)(torch.from_numpy(frames).permute(0, 3, 1, 2))
    assert torch.equal(clip_input(frames, 28, "tensor"), theirs)
    assert (clip_input(frames, 28, "pil") - theirs).abs().max() > 0.1  # antialiased: another picture
