"""A client for servers that speak OpenAI's API: vLLM, sglang, llama.cpp's server, transformers serve, …

Answers that did not come are asked for again: time-outs, dropped connections, answers cut short, 408, 409,
425, 429 and 5xx, with pauses that double and heed Retry-After; too few choices too. It is the standard
library's HTTP: one POST is all that is needed, and openai's package brings eight others.
"""

import http.client
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jax_sft.errors import JaxSftError, UsageError

KEY_VARIABLE = "JAX_SFT_API_KEY"
"""Where the key for a server that wants one is looked for; it is sent to no other than the URL given."""
LONGEST_PAUSE, LONGEST_TOLD_PAUSE = 60.0, 300.0
"""Seconds between two tries: by our own reckoning, and as the server says."""
_AGAIN = frozenset((408, 409, 425, 429))
_ENDED = ("stop", "length")


class EndpointError(JaxSftError):
    """A server that could not be had, or answered what cannot be used."""


class Refused(EndpointError):
    """The server understood and will not: asking again is of no use."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Choice:
    """One completion as a server gave it."""

    text: str
    finish: str
    """`stop` or `length`."""
    token_ids: tuple[int, ...] | None = None
    """Where the server says them; the stop token may be the last."""
    token_count: int | None = None
    """Tokens generated, where the server says it of this choice alone."""
    prompt_tokens: int | None = None


@dataclass(frozen=True)
class Client:
    """Asks one model behind one URL; any number of threads may share it."""

    url: str
    """Up to and without `/completions`: `http://localhost:8000/v1`."""
    model: str
    """The name under which the server has it."""
    timeout: float = 3600.0
    """Seconds that one answer may take."""
    tries: int = 6
    first_pause: float = 1.0
    """Seconds before the second try; each next one is twice as long."""

    def __post_init__(self) -> None:
        """UsageError for what is no URL or names no model."""
        if not self.url.startswith(("http://", "https://")):
            raise UsageError(f"endpoint {self.url!r}: write a URL such as http://localhost:8000/v1")
        if not self.model:
            raise UsageError(f"endpoint {self.url}: name the model that it serves")

    def check_model(self) -> str:
        """Who owns the model by the server's list (vllm, llamacpp, …; empty where it does not say).

        UsageError when the list has other models only. A server without a list must name the model in its
        answers, which `complete` and `chat` check.
        """
        try:
            listed = self._request("models", None).get("data") or []
        except Refused:
            listed = []
        owners = {entry.get("id"): entry.get("owned_by") for entry in listed if isinstance(entry, dict)}
        if owners and self.model not in owners:
            there = ", ".join(sorted(map(str, owners)))
            raise UsageError(f"endpoint {self.url}: does not serve {self.model}; it serves {there}")
        return str(owners.get(self.model) or "")

    def complete(
        self, prompt: str | Sequence[int], fields: dict[str, Any] | None = None, n: int = 1
    ) -> list[Choice]:
        """`n` completions of a prompt, text or token ids; `fields` are further ones of the request."""
        asked = prompt if isinstance(prompt, str) else list(prompt)
        return self._choices("completions", {"prompt": asked, **(fields or {})}, n)

    def chat(
        self, messages: Sequence[dict[str, str]], fields: dict[str, Any] | None = None, n: int = 1
    ) -> list[Choice]:
        """`n` answers to a conversation, rendered by the server's own template."""
        return self._choices("chat/completions", {"messages": list(messages), **(fields or {})}, n)

    def _choices(self, path: str, body: dict[str, Any], n: int) -> list[Choice]:
        """Choices until there are `n`; those that a server left out are asked for again, by another seed."""
        found: list[Choice] = []
        for left in reversed(range(self.tries)):
            more = {"n": n - len(found)} if n - len(found) > 1 else {}
            seed = {"seed": body["seed"] + len(found)} if found and "seed" in body else {}
            answer = self._request(path, {"model": self.model, **body, **more, **seed})
            self._check_name(answer)
            new, unusable = _read_choices(answer)
            found += new
            if len(found) >= n:
                return found[:n]
            if not new and left:
                time.sleep(self._pause(self.tries - 1 - left))
        why = f", one ended by {unusable}" if unusable else ""
        raise EndpointError(
            f"endpoint {self.url}: gave {len(found)} of {n} completions in {self.tries} answers{why}"
        )

    def _check_name(self, answer: dict[str, Any]) -> None:
        """A name may be followed by a revision, as transformers does it."""
        name = answer.get("model")
        if name and name != self.model and not str(name).startswith(f"{self.model}@"):
            raise UsageError(f"endpoint {self.url}: answers as {name}, not as {self.model}")

    def _request(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """The JSON object that the server answers: to a POST of `body`, or a GET."""
        problem, told = "", 0.0
        for attempt in range(self.tries):
            if attempt:
                time.sleep(max(self._pause(attempt - 1), told))
            try:
                return self._once(path, body)
            except urllib.error.HTTPError as error:
                said = _words_of(error)
                if error.code not in _AGAIN and error.code < 500:
                    message = f"endpoint {self.url}: refused {path} with {error.code}: {said}"
                    raise Refused(message, error.code) from None
                problem, told = f"{error.code}: {said}", _retry_after(error)
            except (OSError, http.client.HTTPException, ValueError) as error:
                told, problem = 0.0, str(getattr(error, "reason", "") or error) or type(error).__name__
        raise EndpointError(
            f"endpoint {self.url}: no answer in {self.tries} tries, the last ended with {problem}; "
            "see to the server, then the same command goes on"
        )

    def _once(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url.rstrip('/')}/{path}", data, headers)
        with urllib.request.urlopen(request, timeout=self.timeout) as response:
            answer = json.loads(response.read())
        if not isinstance(answer, dict):
            raise ValueError(f"answered a {type(answer).__name__}, not an object")
        return answer

    def _pause(self, attempt: int) -> float:
        """Seconds before the next try; threads that failed together do not come back together."""
        longest = min(self.first_pause * 2**attempt, LONGEST_PAUSE)
        return longest * random.uniform(0.5, 1.0)


def _read_choices(answer: dict[str, Any]) -> tuple[list[Choice], str]:
    """The whole choices of an answer, and how one ended that is not whole."""
    usage = answer.get("usage") or {}
    entries = [entry for entry in answer.get("choices") or [] if isinstance(entry, dict)]
    found, unusable = [], ""
    for entry in entries:
        message = entry.get("message") or {}
        text, finish = entry.get("text", message.get("content")), entry.get("finish_reason")
        if not isinstance(text, str) or finish not in _ENDED:
            unusable = str(finish)
            continue
        ids = entry.get("token_ids")
        count = usage.get("completion_tokens") if len(entries) == 1 else None
        found.append(
            Choice(text, finish, None if ids is None else tuple(ids), count, usage.get("prompt_tokens"))
        )
    return found, unusable


def _words_of(error: urllib.error.HTTPError) -> str:
    """What the server said of an error, in one line."""
    try:
        raw = error.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        raw = ""
    try:
        value = json.loads(raw)
        value = value.get("error") or value.get("detail") or value.get("message") or value
        raw = value.get("message", raw) if isinstance(value, dict) else str(value)
    except (ValueError, AttributeError):
        pass
    return " ".join(raw.split())[:300] or str(error.reason)


def _retry_after(error: urllib.error.HTTPError) -> float:
    """Seconds that the server asks to wait; 0 where it does not say them."""
    told = error.headers.get("Retry-After") or ""
    return min(float(told), LONGEST_TOLD_PAUSE) if told.strip().isdecimal() else 0.0
