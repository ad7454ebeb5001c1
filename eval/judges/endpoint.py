"""A judge behind an OpenAI-compatible chat endpoint: frames and a question -> its text.

Dimensions: T frame, H, W pixel rows and columns, C colour.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import numpy as np
from PIL import Image

from astro_cli.config.errors import RecordError
from astro_cli.config.files import described
from astro_cli.config.parsing import parse_json
from eval.judges import judge_location

TRIES = 4
PAUSE = 1.0  # seconds before the second try; doubled after each
AGAIN = (408, 425, 429, 500, 502, 503, 504)  # answers that may be different later
QUALITY = 95  # of the JPEGs that are sent
QUOTED = 200  # characters of an error's body
MOST_BYTES = 2**22  # of an answer
ANSWER = "choices[0].message.content"
HIDDEN = "***"


class EndpointError(RecordError):
    """The endpoint refuses, cannot be reached, or does not speak the protocol."""


class Endpoint:
    """Asks greedily (temperature 0, seed 0).

    Args:
        url: up to and with the version, for example "http://127.0.0.1:8000/v1".
        key: sent as bearer token where there is one.
        seconds: an answer may take.
    """

    def __init__(self, url: str, model: str, key: str = "", seconds: float = 300.0, max_tokens: int = 512) -> None:
        self.url, self.model, self.key, self.seconds, self.max_tokens = url, model, key, seconds, max_tokens
        check_url(url)
        if key and not (key.isascii() and key.isprintable()):
            hint = "is it cut off, or does it end in a line feed?"
            raise EndpointError(judge_location.KEY_VARIABLE, "", "expected printable ASCII characters", hint=hint)

    def ask(self, text: str, frames_THWC: np.ndarray, times: list[float]) -> str:
        """The answer to a question about a video, given as pictures in order with their times in seconds.

        Raises:
            EndpointError: refused, unreachable after four tries, or an answer that is no chat completion.

        **Deviations:** pictures with their times instead of one video, which the common protocol does not know.
        """
        content: list[dict[str, Any]] = []
        for frame_HWC, seconds in zip(frames_THWC, times, strict=True):
            content += [
                {"type": "text", "text": f"<{seconds:.1f} seconds>"},
                {"type": "image_url", "image_url": {"url": _data_url(frame_HWC)}},
            ]
        content.append({"type": "text", "text": text})
        messages = [{"role": "user", "content": content}]
        body = {"model": self.model, "messages": messages, "temperature": 0, "seed": 0, "max_tokens": self.max_tokens}
        reply = self._post(body)
        try:
            answer = parse_json(reply)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            raise EndpointError(self.url, ANSWER, f"not in the answer: {self._quoted(reply)!r}") from error
        if not isinstance(answer, str):
            raise EndpointError(self.url, ANSWER, f"found {described(answer)}, expected text")
        return answer

    def _post(self, body: dict[str, Any]) -> str:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(f"{self.url}/chat/completions", json.dumps(body).encode(), headers)
        open_url = urllib.request.build_opener(_NoRedirect).open
        what = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                with open_url(request, timeout=self.seconds) as reply:
                    return reply.read(MOST_BYTES).decode("utf-8", "replace")
            except urllib.error.HTTPError as error:
                what = f"HTTP {error.code}: {self._quoted(error.read(MOST_BYTES).decode('utf-8', 'replace'))}"
                if 300 <= error.code < 400:
                    what = f"HTTP {error.code}: sends requests elsewhere, which is not followed: it would get the key"
                if error.code not in AGAIN:
                    hint = (
                        f"check {judge_location.KEY_VARIABLE} and {judge_location.MODEL_VARIABLE}"
                        if error.code in (401, 403, 404)
                        else ""
                    )
                    raise EndpointError(self.url, self.model, what, hint=hint) from error
            except (OSError, ValueError, http.client.HTTPException) as error:  # unreachable, timed out, cut off
                what = f"no answer: {self._quoted(str(error) or type(error).__name__)}"
        raise EndpointError(
            self.url,
            self.model,
            f"{what} ({TRIES} tries)",
            hint=f"is the server at {judge_location.URL_VARIABLE} running?",
        )

    def _quoted(self, text: str) -> str:
        """The beginning of a server's words, without the key."""
        return (text.replace(self.key, HIDDEN) if self.key else text)[:QUOTED]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An answer that names another place is an error: urllib would send the key there too."""

    def redirect_request(self, *_: Any) -> None:
        return None


def check_url(url: str) -> None:
    """Refuse what is no address of a server. The message does not show it: a password may stand in it.

    Raises:
        EndpointError: no http(s) URL with a host, or one with a user or blanks in it.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, a bracket without its other
        whole = False
    if not whole or "@" in url or " " in url or not (url.isascii() and url.isprintable()):
        what = "found no address of a server, expected http://HOST:PORT/v1 or https://HOST/v1"
        hint = f"a user or password does not belong in it: put a key into {judge_location.KEY_VARIABLE}"
        raise EndpointError(judge_location.URL_VARIABLE, "", what, hint=hint)


def _data_url(frame_HWC: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(frame_HWC).save(buffer, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
