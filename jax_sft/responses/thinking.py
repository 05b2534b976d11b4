"""The think block: what a response says to itself before it speaks to the reader.

The first tag may be missing, as it is where the chat template wrote it before the response began.
"""

import re
from collections.abc import Callable

OPEN, CLOSE = TAGS = ("<think>", "</think>")
_TAG = re.compile(r"</?think>")
_BLOCK = re.compile(r"(<think>|\A(?=(?:(?!<think>).)*</think>))(.*?)(</think>\s*)", re.DOTALL)


def visible(response: str) -> str | None:
    """The text after the last closing tag, all when nothing was thought; None when thinking never ended."""
    if response.rfind(OPEN) > response.rfind(CLOSE):
        return None
    return response[len(thought(response)) :]


def thought(response: str) -> str:
    """All up to and with the last closing tag; nothing without one, everything when thinking never ended."""
    opened, closed = response.rfind(OPEN), response.rfind(CLOSE)
    if opened > closed:
        return response
    return response[: closed + len(CLOSE)] if closed >= 0 else ""


def reopened(response: str, finish: str) -> str:
    """A response whose template opened the thought, with that tag.

    One that ended by itself and closed no thought is taken as it stands: all of it was said.
    """
    return OPEN + response if CLOSE in response or finish != "stop" else response


def traces(response: str) -> list[str]:
    """What stands inside each think block that was closed."""
    return [match[2] for match in _BLOCK.finditer(response)]


def change_traces(response: str, change: Callable[[str], str]) -> str:
    """The response with what stands inside each think block changed."""
    return _BLOCK.sub(lambda match: match[1] + change(match[2]) + match[3], response)


def without_traces(response: str) -> str:
    """The response without its think blocks and the white space after them."""
    return _BLOCK.sub("", response)


def after_trace(trace: str, answer: str) -> str:
    """A response that thinks `trace`, which ends in a line break, and then says `answer`."""
    return f"{OPEN}\n{trace}{CLOSE}\n{answer}"


def tags(response: str) -> list[str]:
    """The think tags in the order in which they stand."""
    return _TAG.findall(response)


def matched(response: str) -> bool:
    """Whether think tags come in pairs, opened before closed and not nested; the first one may be missing."""
    found = tags(response)
    whole = [OPEN, *found] if found[:1] == [CLOSE] else found
    return whole == list(TAGS) * (len(whole) // 2)


def without_tags(text: str) -> str:
    """The text without think tags, what stands inside them kept."""
    return _TAG.sub("", text)
