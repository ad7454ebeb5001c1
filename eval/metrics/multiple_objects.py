"""VBench's multiple objects: whether GRiT detects both objects that the prompt asks for. Runs in another interpreter.

Share of 16 frames in which both objects of "a and b" are detected.

Source: VBench, arXiv 2311.17982; vbench 0.1.5, multiple_objects.py.
**Deviations:** none in the score: the official code computes it, in an interpreter of its own. VBench's number for a
set of videos is the mean over their frames, which are 16 each.
"""

from __future__ import annotations

from eval.vbench.isolated import declare_isolated

SCORER = declare_isolated(
    "multiple_objects", "VBench: share of frames in which GRiT detects both objects", weights="grit", what="detectron2"
)
