"""Another size of an arm's videos than the trained one: checked against patch and codec, and where the tokens of its
frames stand.

Source: AAPT (arXiv 2506.09350), supplement C: spatial positions are stretched to other resolutions.
"""

from __future__ import annotations

import re
from dataclasses import replace

from astro_cli.config.errors import StreamError
from astro_cli.generate.arm import Arm
from astro_cli.spec.parts import MOST_CELLS

SIZE = re.compile(r"([0-9]{1,6})x([0-9]{1,6})")


def resized(arm: Arm, size: str | None, *, stretch: bool | None = None) -> Arm:
    """The arm with videos of that size. Its network is the same one, whose positions are set for the size.

    Args:
        size: "HEIGHTxWIDTH" in pixels; None: as trained.
        stretch: let the positions of the new size cover those of the trained one, or count tokens; default as the
            card says.

    Raises:
        StreamError: not HEIGHTxWIDTH, no whole number of tokens, or a side that no video has.
    """
    if size is None:
        if stretch is not None:
            raise StreamError("--stretch", "", "there is no other size to stretch to", hint="add --size HEIGHTxWIDTH")
        return arm
    match, cell, video = SIZE.fullmatch(size), arm.backbone.cell, arm.card["video"]
    patch = arm.network.config.patch
    rows, columns = (cell * cells for cells in patch)
    height, width = (int(side) for side in match.groups()) if match else (0, 0)
    if not height or not width or height % rows or width % columns or max(height, width) > MOST_CELLS * cell:
        raise StreamError(
            "--size",
            size,
            f"expected HEIGHTxWIDTH in multiples of {rows} and {columns} pixels, at most {MOST_CELLS * cell}",
            hint="for example --size 480x832",
        )
    stretched = video.get("stretch", False) if stretch is None else stretch
    arm.network.span = (video["height"] // patch[0], video["width"] // patch[1]) if stretched else None
    made = {"height": height // cell, "width": width // cell, "stretch": stretched}
    return replace(arm, card=arm.card | {"video": video | made})
