"""A judge behind an OpenAI-compatible endpoint, which has its weights and writes the turns."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace

from jax_sft.config import TokensConfig
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.generation.client import Client, Refused
from jax_sft.judges.chosen import Chosen
from jax_sft.judges.page import Conversation, Question, digest
from jax_sft.tokens.loading import load_tokenizer

CONCURRENCY = 32
"""Questions under way at once, where the judge's `slots` say nothing."""
_OF_ALL = (401, 403, 404)
"""With these a server refuses not a question but whoever asks."""
Answer = tuple[str, tuple[str, ...], bool]
"""Which question, by its checksum; the outputs to its conversations; whether what they judge was cut."""


class ServedJudge:
    """A judge that a server answers for. Asked for the server's models when it is made."""

    def __init__(self, judge: Chosen, client: Client | None = None) -> None:
        """Errors, naming the judge, when the server cannot be had or has another model."""
        self.judge, self.config, self.page = judge, judge.config, judge.page
        name = f"judge {self.config.name}"
        model = self.config.model or self.page.weights
        if not model:
            raise UsageError(f"{name}: name the model that its endpoint serves, as model='gpt-4.1'")
        if self.page.kind == "score":
            raise UsageError(f"{name}: its page {self.page.name} needs one score, an endpoint gives words")
        if self.page.response_tokens and not self.config.tokenizer:
            raise UsageError(
                f"{name}: its page judges the first {self.page.response_tokens} tokens of a response; "
                "say whose with its tokenizer"
            )
        try:
            self._client = client or Client(self.config.endpoint, model)
            self._tokenizer = (
                load_tokenizer(TokensConfig(tokenizer=self.config.tokenizer))
                if self.page.response_tokens
                else None
            )
            replace(self._client, tries=min(2, self._client.tries)).check_model()
        except JaxSftError as error:
            raise type(error)(f"{name}: {error}") from None
        self.weights_name = f"{model} behind an endpoint"
        limit = self.config.max_new_tokens or self.page.max_new_tokens
        self._fields = {"temperature": 0, "max_tokens": limit}
        self.identity = digest([self.page.name, self.page.prompt_hash, "endpoint", model, self._fields])

    def check_room(self, question: Question, item: str) -> None:
        """Say nothing: the server alone knows its context."""

    def answers(self, asked: Mapping[str, Question], advance: Callable[[int], None]) -> Iterator[Answer]:
        """The answer to each question, as they come; JaxSftError at the end when some were refused."""
        refused: list[str] = []
        pool = ThreadPoolExecutor(self.config.slots or CONCURRENCY)
        try:
            under_way = {pool.submit(self._answer, question): of for of, question in asked.items()}
            for future in as_completed(under_way):
                try:
                    outputs, count, cut = future.result()
                except Refused as error:
                    if error.status in _OF_ALL:
                        raise
                    refused.append(str(error))
                    continue
                advance(count)
                yield under_way[future], outputs, cut
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        if refused:
            raise JaxSftError(
                f"judge {self.config.name}: {len(refused)} of {len(asked)} questions were refused, "
                f"the first: {refused[0]}"
            )

    def _answer(self, question: Question) -> tuple[tuple[str, ...], int, bool]:
        """The outputs for a question, their tokens where the server counts them, and whether it was cut."""
        cut = False
        if self._tokenizer is not None:
            offsets = self._tokenizer.encode_plain(question.response)[1]
            if cut := len(offsets) > self.page.response_tokens:
                end = offsets[self.page.response_tokens][0]
                question = replace(question, response=question.response[:end])
        outputs, count = [], 0
        for conversation in self.page.conversations(question):
            text, tokens = self._ask(conversation)
            outputs.append(text)
            count += tokens
        return tuple(outputs), count, cut

    def _ask(self, conversation: Conversation) -> tuple[str, int]:
        if self.page.template == "raw":
            text = "".join(turn["content"] for turn in conversation)
            [choice] = self._client.complete(text, self._fields)
        else:
            [choice] = self._client.chat(conversation, self._fields)
        return choice.text, choice.token_count or 0
