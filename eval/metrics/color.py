"""VBench's colour: whether GRiT describes the object in the colour that the prompt asks for. Runs in another
interpreter.

Of the frames in which the object is described with some colour, the share in which it is the one of
`auxiliary_info.color`; none where there is no such frame, as the official code leaves such a video out of its mean. The
official code takes every description in a frame for one of the frame's first object.

Source: VBench, arXiv 2311.17982; vbench 0.1.5, color.py.
**Deviations:** none in the score: the official code computes it, in an interpreter of its own. Where no video has its
object it divides by zero.
"""

from __future__ import annotations

from eval.vbench.isolated import declare_isolated

SCORER = declare_isolated(
    "color", "VBench: share of frames in which GRiT names the object's colour", weights="grit", what="detectron2"
)
