"""What the host sees in a sequence as it comes, and the device does not: stop texts and loops."""

from typing import NamedTuple

from jax_sft.errors import UsageError
from jax_sft.generation.backend import Request
from jax_sft.generation.loops import Loops
from jax_sft.generation.stops import Stops
from jax_sft.study.records import Finish


class Ending(NamedTuple):
    """How a sequence ends before the device would end it."""

    token_count: int
    """Tokens that it keeps."""
    finish: Finish
    text: str | None = None
    """What stands before the stop text."""


class Watch:
    """Watches the new tokens of one request; where it ends depends on them alone."""

    def __init__(self, request: Request) -> None:
        """UsageError when it has stop texts but no `decode` to find them with."""
        stop = request.sampling.stop
        if stop and request.decode is None:
            raise UsageError(f"item {request.id}: stop texts need a request that can decode its tokens")
        self._stops = Stops(stop, request.decode) if stop and request.decode else None
        self._loops = Loops(request.loop_tokens) if request.loop_tokens else None

    @property
    def idle(self) -> bool:
        """Whether there is nothing to watch for."""
        return self._stops is None and self._loops is None

    def look(self, tokens: list[int]) -> Ending | None:
        """The first ending among all tokens so far; a stop text comes before a loop."""
        stopped = self._stops.look(tokens) if self._stops else None
        looped = self._loops.look(tokens) if self._loops else 0
        if stopped and not 0 < looped < stopped.token_count:
            return Ending(stopped.token_count, "stop", stopped.text)
        return Ending(looped, "loop") if looped else None
