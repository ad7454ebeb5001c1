"""VBench's scene: whether Tag2Text's captions name the place that the prompt asks for. Runs in another interpreter.

Share of 16 frames, 384 x 384, whose caption holds every word of `auxiliary_info.scene`.

Source: VBench, arXiv 2311.17982; vbench 0.1.5, scene.py.
**Deviations:** none in the score: the official code computes it, in an interpreter of its own. VBench's number for a
set of videos is the mean over their frames, which are 16 each.
"""

from __future__ import annotations

from eval.vbench.isolated import declare_isolated

WHAT = "transformers 4.33.2, fairscale and bert-base-uncased"
SCORER = declare_isolated(
    "scene", "VBench: share of frames whose Tag2Text caption names the scene", weights="tag2text", what=WHAT
)
