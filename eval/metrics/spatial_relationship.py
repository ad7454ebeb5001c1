"""VBench's spatial relationship: whether two objects stand to each other as the prompt asks. Runs in another
interpreter.

Mean over 16 frames of the best pair's position score: 1 where the centres lie along the asked axis with an overlap
(IoU) below 0.1, else 0.1 / IoU.

Source: VBench, arXiv 2311.17982; vbench 0.1.5, spatial_relationship.py.
**Deviations:** none in the score: the official code computes it, in an interpreter of its own. VBench's number for a
set of videos is the mean over their frames, which are 16 each. The axis counts, the side does not: "left of" and "right
of" score alike.
"""

from __future__ import annotations

from eval.vbench.isolated import declare_isolated

SCORER = declare_isolated(
    "spatial_relationship",
    "VBench: how well GRiT's detections stand as the prompt says",
    weights="grit",
    what="detectron2",
)
