"""Prompts typed while a video streams: the reading thread and what a typed line does. `preview` shows the frames."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable

from astro_cli.config.errors import AstroError
from astro_cli.config.prompt_files import BOM

QUIT = "/quit"


class TypedPrompts:
    """A `Script` whose prompts are typed: each line takes over at the next block, in the order they come. One that is
    there before the first block is the prompt the video starts with.

    Empty lines are ignored. "/quit" ends the video at once. At the end of input a video runs to its length; one without
    a length ends at once.

    Args:
        lines: the typed lines; a thread of its own reads them, so that frames do not wait.
        latents: length in latent frames, None for none.
        check: raises an `AstroError` for a prompt that cannot be taken; it is shown and the stream goes on.
        show: prints a line to the user.
    """

    def __init__(
        self, lines: Iterable[str], latents: int | None, check: Callable[[str], object], show: Callable[[str], None]
    ) -> None:
        self.latents, self.check, self.show = latents, check, show
        self.lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()  # None: the input has ended
        self._over = False
        threading.Thread(target=self._read, args=(lines,), name="prompts", daemon=True).start()

    def _read(self, lines: Iterable[str]) -> None:
        try:
            for line in lines:
                self.lines.put(line)
        except AstroError as error:
            self.show(str(error))
        finally:
            self.lines.put(None)

    def first(self, given: str | None) -> str | None:
        """The prompt that the video starts with: the given one, or the first that is typed and can be taken; a prompt
        that waits behind it replaces it. None where the input ends or is quit before one.
        """
        prompt = self._awaited() if given is None else given
        waiting = None if prompt is None else self.due(0)
        return prompt if waiting is None else waiting[0]

    def _awaited(self) -> str | None:
        while not self._over:
            line = self.lines.get()
            if line is None:
                return None
            if (prompt := self._taken(line)) is not None:
                return prompt
        return None

    def due(self, frame: int) -> list[str] | None:
        """The next typed prompt, if one waits."""
        while not self._over and not self.lines.empty():
            line = self.lines.get()
            if line is None:
                self._over = self.latents is None
            elif (prompt := self._taken(line)) is not None:
                return [prompt]
        return None

    def ended(self, frame: int) -> bool:
        return self._over or (self.latents is not None and frame >= self.latents)

    def _taken(self, line: str) -> str | None:
        """A line as a prompt; None where it is empty, wrong, or ends the video."""
        prompt = " ".join(line.lstrip(BOM).split())
        if prompt == QUIT:
            self._over = True
        if not prompt or prompt == QUIT:
            return None
        try:
            self.check(prompt)
        except AstroError as error:
            self.show(str(error))
            return None
        return prompt
