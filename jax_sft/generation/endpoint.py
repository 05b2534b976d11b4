"""A server behind an OpenAI-compatible endpoint as a backend: it has its own weights, of one snapshot.

Prompts go as token ids where the server takes them, else as text that it must read as the very same number of
tokens. What a completion keeps is decided here as in our engine, stop texts and loops included.
"""

import json
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

from jax_sft.errors import UsageError
from jax_sft.generation.backend import Completion, Request
from jax_sft.generation.client import Choice, Client, EndpointError, Refused
from jax_sft.generation.schedule import check
from jax_sft.generation.watch import Watch
from jax_sft.models import Params
from jax_sft.tokens.tokenizer import Tokenizer

CONCURRENCY = 32
"""Requests under way at once."""
_NAMED_OWNERS = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llama.cpp"}
_PROBES = 2
"""Tries of a form that the server may not understand: some answer 500 to it, others drop the connection."""


@dataclass(frozen=True)
class _Form:
    """A way to write a request."""

    ids: bool
    """Prompts are token ids."""
    all_tokens: int | None = None
    """What `top_k` says when it keeps all; None where the server knows neither top_k nor min_p."""
    configured: bool = False
    """All is said by transformers' `generation_config`."""

    def fields(self, request: Request, stops: tuple[int, ...], seed: int) -> dict[str, Any]:
        """The fields of a request besides its prompt."""
        sampling = request.sampling
        fields: dict[str, Any] = {
            "max_tokens": request.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": zlib.crc32(repr((seed, request.id, request.sample)).encode()) >> 1,
        }
        for name in ("presence_penalty", "frequency_penalty"):
            if value := getattr(sampling, name):
                fields[name] = value
        if sampling.stop:
            fields["stop"] = list(sampling.stop)
        if self.all_tokens is not None:
            # Servers have defaults of their own, which are not ours.
            fields |= {"top_k": sampling.top_k or self.all_tokens, "min_p": sampling.min_p}
            fields |= {"repetition_penalty": 1.0, "repeat_penalty": 1.0}
        if self.configured:
            fields["generation_config"] = json.dumps(_generation_config(request, stops))
        if self.ids:
            fields |= {"stop_token_ids": list(stops), "return_token_ids": True}
        return fields


def _generation_config(request: Request, stops: tuple[int, ...]) -> dict[str, Any]:
    """The request in the words of transformers."""
    sampling = request.sampling
    return {
        "do_sample": sampling.temperature > 0,
        "temperature": sampling.temperature or 1.0,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p or None,
        "max_new_tokens": request.max_new_tokens,
        "eos_token_id": list(stops),
        "pad_token_id": stops[0] if stops else 0,
    }


_FORMS = (_Form(True, -1), _Form(True, 0), _Form(False, -1), _Form(False, 0), _Form(False, configured=True))
"""In the order in which they are tried: vLLM, sglang and llama.cpp's own server take the first."""
_PLAIN = _Form(False)
"""What any server takes; enough where nothing but temperature and top-p is asked."""


def identify(client: Client) -> str:
    """What the records of units call the backend, by what the server says it is.

    UsageError when it serves another model than the client asks for.
    """
    return f"endpoint {_NAMED_OWNERS.get(client.check_model(), '')}".strip()


class Endpoint:
    """Draws completions from a server."""

    def __init__(
        self, client: Client, tokenizer: Tokenizer, stop_ids: tuple[int, ...], concurrency: int = CONCURRENCY
    ) -> None:
        """Nothing is asked of the server yet."""
        self._client, self._tokenizer, self._stops = client, tokenizer, stop_ids
        self._concurrency = concurrency
        self._form: _Form | None = None

    def abstract_params(self) -> Params:
        """Nothing: it takes no weights."""
        return {}

    def load(self, params: Params) -> None:
        """Do nothing: the server has its weights."""

    def unload(self) -> None:
        """Do nothing, either."""

    def generate(self, requests: Iterable[Request], seed: int = 0) -> Iterator[tuple[Request, Completion]]:
        """Each request with its completion, in the order in which they end.

        UsageError, before anything is drawn, for a request that cannot be answered; EndpointError when the
        server fails for good.
        """
        asked = tuple(requests)
        for request in asked:
            length = len(request.prompt) + request.max_new_tokens  # the server knows its own context
            check(request, length, self._tokenizer.vocab_size)
            if request.logprobs:
                raise UsageError(f"item {request.id}: an endpoint gives no log-probabilities of its tokens")
        return self._generate(asked, seed)

    def _generate(self, requests: tuple[Request, ...], seed: int) -> Iterator[tuple[Request, Completion]]:
        if not requests:
            return
        form = self._form or self._find_form(requests[0])
        self._form = form
        waiting = iter(requests)
        under_way: dict[Future[Completion], Request] = {}
        pool = ThreadPoolExecutor(self._concurrency)
        try:
            while True:
                for request in waiting:
                    under_way[pool.submit(self._answer, form, request, seed)] = request
                    if len(under_way) == 2 * self._concurrency:
                        break
                if not under_way:
                    return
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    yield under_way.pop(future), future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _find_form(self, request: Request) -> _Form:
        """The first form in which the server answers a request for one token."""
        short = replace(request, max_new_tokens=1)
        filters = bool(request.sampling.top_k or request.sampling.min_p)
        trying = replace(self._client, tries=min(_PROBES, self._client.tries))
        for form in _FORMS:
            try:
                self._ask(trying, form, short, 0)
                return form
            except Refused as refused:
                if refused.status in (401, 403, 404):
                    raise
            except EndpointError:
                continue
        form = _FORMS[-1] if filters else _PLAIN
        self._ask(self._client, form, short, 0)  # where it is refused, the server says why
        return form

    def _ask(self, client: Client, form: _Form, request: Request, seed: int) -> Choice:
        ids = request.prompt
        prompt = ids if form.ids else self._tokenizer.decode(list(ids), skip_special_tokens=False)
        [choice] = client.complete(prompt, form.fields(request, self._stops, seed))
        if choice.prompt_tokens not in (None, len(ids)):
            raise UsageError(
                f"endpoint {client.url}: reads the prompt of item {request.id} as {choice.prompt_tokens} "
                f"tokens, not as its {len(ids)}: its tokenizer is another, or adds tokens of its own"
            )
        return choice

    def _answer(self, form: _Form, request: Request, seed: int) -> Completion:
        choice = self._ask(self._client, form, request, seed)
        if choice.token_ids is None:
            tokens = self._tokenizer.encode(choice.text)
            stopped = choice.finish == "stop"
            # llama-cpp-python leaves the token that stopped it out of its count, transformers does not.
            count = choice.token_count or len(tokens)
            count = max(count, len(tokens) + 1) if stopped else count
            text: str | None = choice.text
        else:
            tokens, count = list(choice.token_ids), len(choice.token_ids)
            if tokens and tokens[-1] in self._stops:
                tokens.pop()
            text = choice.text if request.sampling.stop and choice.finish == "stop" else None
        known = choice.token_ids is not None or choice.token_count
        if known and choice.finish == "length" and count < request.max_new_tokens:
            raise EndpointError(
                f"endpoint {self._client.url}: cut item {request.id} after {count} of "
                f"{request.max_new_tokens} tokens: have it serve the model with a longer context"
            )
        ending = Watch(replace(request, decode=self._tokenizer.decode)).look(tokens)
        if ending is not None:
            kept = tuple(tokens[: ending.token_count])
            return Completion(kept, ending.token_count, ending.finish, text=ending.text)
        return Completion(tuple(tokens), count, "stop" if choice.finish == "stop" else "length", text=text)
