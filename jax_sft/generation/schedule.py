"""Who is answered when and where: requests, the slots they decode in, the rows they are prefilled in.

Plain Python on the host: no device and no array has a part in it.
"""

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from jax_sft.errors import UsageError
from jax_sft.generation.backend import Completion, Request
from jax_sft.generation.watch import Ending, Watch

SMALLEST_BUCKET = 32


@dataclass(frozen=True)
class Start:
    """A request on its way into a slot."""

    request: Request
    slot: int
    row: int
    """Where its prompt is prefilled."""


@dataclass
class Live:
    """A request in its slot."""

    request: Request
    watch: Watch
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def ending(self, stop_ids: Collection[int]) -> Ending | None:
        """What the host sees in the tokens so far; a closing stop token is no part of the text."""
        if self.watch.idle or not self.tokens:
            return None
        return self.watch.look(self.tokens[:-1] if self.tokens[-1] in stop_ids else self.tokens)

    def completion(self, stop_ids: Collection[int]) -> Completion:
        """How it ended on the device: with a stop token or at its limit."""
        stopped = self.tokens[-1] in stop_ids
        kept = tuple(self.tokens[:-1] if stopped else self.tokens)
        return Completion(kept, len(self.tokens), "stop" if stopped else "length", tuple(self.logprobs))

    def cut(self, ending: Ending) -> Completion:
        """How it ends by what the host saw; what came after that is dropped."""
        count = ending.token_count
        kept = tuple(self.tokens[:count])
        return Completion(kept, count, ending.finish, tuple(self.logprobs[:count]), ending.text)


@dataclass(frozen=True)
class Admission:
    """Requests that start together, after one prefill of their prompts."""

    prompts: tuple[tuple[int, ...], ...]
    """Those of its rows, each once however many samples share it, of one bucket."""
    columns: int
    """Of the bucket."""
    starts: tuple[Start, ...]


class Schedule:
    """The requests of one call: those that wait, in order, and those in slots with the tokens so far."""

    def __init__(
        self, requests: Iterable[Request], slots: int, rows: int, context: int, stop_ids: Sequence[int]
    ) -> None:
        """`rows` are prompts that one prefill holds, `context` tokens that a slot does."""
        self._waiting = deque(requests)
        self._slots, self._rows, self._context = slots, rows, context
        self._stop_ids = frozenset(stop_ids)
        self._live: dict[int, Live] = {}
        self._cut: set[int] = set()

    @property
    def unfinished(self) -> bool:
        """Whether a request waits or is being answered."""
        return bool(self._waiting or self._live)

    def admit(self) -> Admission | None:
        """Put the next that one prefill can serve into free slots; None when no slot is free or nobody waits.

        Requests leave the queue in its order: the first whose prompt is of another bucket, or one too many,
        waits for the next admission, and so do those behind it.
        """
        free = [slot for slot in range(self._slots) if slot not in self._live]
        if not free or not self._waiting:
            return None
        columns = bucket(self._waiting[0].prompt, self._context)
        rows: dict[tuple[int, ...], int] = {}
        starts = []
        for slot in free:
            if not self._waiting or not self._fits(self._waiting[0].prompt, columns, rows):
                break
            request = self._waiting.popleft()
            row = rows.setdefault(request.prompt, len(rows))
            starts.append(Start(request, slot, row))
            self._live[slot] = Live(request, Watch(request))
        return Admission(tuple(rows), columns, tuple(starts))

    def _fits(self, prompt: tuple[int, ...], columns: int, rows: dict[tuple[int, ...], int]) -> bool:
        has_row = prompt in rows or len(rows) < self._rows
        return has_row and bucket(prompt, self._context) == columns

    def collect(
        self,
        new_tokens: Sequence[Sequence[int]],
        going_on: Sequence[bool],
        logprobs: Sequence[Sequence[float]] = (),
    ) -> list[tuple[Request, Completion]]:
        """Take the new tokens of every slot; the requests that end with them, which leave their slots."""
        ended = []
        for slot, live in sorted(self._live.items()):
            live.tokens.extend(new_tokens[slot])
            if live.request.logprobs:
                live.logprobs.extend(logprobs[slot])
            if live.request.listen:
                live.request.listen(new_tokens[slot])
            ending = live.ending(self._stop_ids)
            if ending:
                ended.append((live.request, live.cut(ending)))
            elif not going_on[slot]:
                ended.append((live.request, live.completion(self._stop_ids)))
            else:
                continue
            if going_on[slot]:
                self._cut.add(slot)
            del self._live[slot]
        return ended

    def take_cut(self) -> list[int]:
        """Free slots, each given once, that the device still decodes: what the host saw ended them."""
        cut = sorted(self._cut - self._live.keys())
        self._cut = set()
        return cut


def bucket(prompt: Sequence[int], context: int) -> int:
    """Columns in which a prompt less its last token is prefilled: a power of two, at most the context."""
    size = SMALLEST_BUCKET
    while size < len(prompt) - 1:
        size *= 2
    return min(size, context)


def check(request: Request, context: int, vocab_size: int) -> None:
    """UsageError for a request that cannot be answered: nothing to do, too long, unknown tokens."""
    length, new = len(request.prompt), request.max_new_tokens
    if length == 0 or new < 1:
        raise UsageError(
            f"item {request.id}: a prompt of {length} tokens and max_new_tokens {new}; "
            "both must be at least 1"
        )
    if max(request.prompt) >= vocab_size:
        raise UsageError(
            f"item {request.id}: its prompt holds token {max(request.prompt)}, the model knows those "
            f"below {vocab_size}: the tokenizer is not the model's"
        )
    if length + new > context:
        raise UsageError(
            f"item {request.id}: its prompt of {length} tokens and max_new_tokens {new} do not fit "
            f"evaluation.context {context}: raise it to {length + new} or lower max_new_tokens"
        )
