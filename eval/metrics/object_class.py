"""VBench's object class: whether GRiT detects the object that the prompt asks for. Runs in another interpreter.

Share of 16 frames with a detection of `auxiliary_info.object`.

Source: VBench, arXiv 2311.17982; vbench 0.1.5, object_class.py.
**Deviations:** none in the score: the official code computes it, in an interpreter of its own. VBench's number for a
set of videos is the mean over their frames, which are 16 each. A video on which the detector fails has no score; the
official code counts its frames as ones without objects.
"""

from __future__ import annotations

from eval.vbench.isolated import declare_isolated

SCORER = declare_isolated(
    "object_class", "VBench: share of frames in which GRiT detects the object", weights="grit", what="detectron2"
)
