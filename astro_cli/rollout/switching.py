"""What a change of the prompt does to a running stream's cached past. `switch_schedule` says when it comes,
`engine.Streamer.switch` carries it out.

Source: LongLive (arXiv 2509.22622) section 3.1, KV-recache, and its released code.
"""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from astro_cli.config.base import Config


class SwitchRule(Config):
    """What happens to the cached past when the prompt changes.

    recache: "none" changes only the text that new blocks attend to. "bidirectional" recomputes the keys and values of
        the visible frames under the new prompt in one pass without a mask (LongLive as released). "block_causal"
        recomputes them block by block, as they were first made.
    renew_sink: recompute the sink too; it becomes the first frames of the window. Else the sink keeps the old prompt.
    """

    recache: Literal["none", "bidirectional", "block_causal"] = "bidirectional"
    renew_sink: bool = False

    @model_validator(mode="after")
    def _check(self) -> SwitchRule:
        if self.renew_sink and self.recache == "none":
            raise ValueError(
                'renew_sink: found true, expected false with recache = "none": a sink is renewed by recomputing it'
            )
        return self
