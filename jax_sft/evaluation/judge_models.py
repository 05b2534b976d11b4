"""The model behind a judge: its tokenizer, template and shape, what it is shown, and which weights it has."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from jax_sft.config import EvaluationConfig, TokensConfig
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.files import home, list_files
from jax_sft.hub import WEIGHTS, local_folder
from jax_sft.judges.chosen import Chosen
from jax_sft.judges.page import Conversation, Question, digest, prompt_text
from jax_sft.models.weights.read import pretrained_config
from jax_sft.models.weights.safetensors import SafetensorsFolder
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.rendering import render_conversation, render_prompt, stop_ids
from jax_sft.tokens.templates import ChatTemplate, load_template

RAW = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""Text as it stands, after the token with which the tokenizer begins every text."""
CONTEXT = 4096
_CHUNK = 1 << 24
T = TypeVar("T")


@dataclass(frozen=True)
class Shown:
    """What a judge is shown for a question: the tokens of each conversation."""

    prompts: tuple[tuple[int, ...], ...]
    cut: bool
    """Whether not all of the response is in them."""


class JudgeModel:
    """A judge with all that it takes to ask it, weights aside. Bad input is found when it is made."""

    def __init__(self, judge: Chosen, evaluation: EvaluationConfig) -> None:
        """UsageError or JaxSftError, naming the judge, when its model cannot be had or does not fit it."""
        self.judge, self.evaluation = judge, evaluation
        self.config, self.page = judge.config, judge.page
        self.spec = self.config.model or self.page.weights
        self._guarded(self._prepare)

    def _prepare(self) -> None:
        if not self.spec:
            raise UsageError("its page goes with any instructed model: give one, as model='Qwen/Qwen3-8B'")
        if self.spec != "smollm2":
            self._folder = local_folder(self.spec, WEIGHTS)
            SafetensorsFolder(self._folder)
        self.model = pretrained_config(self.spec, self.config.init_ignore)
        if (self.model.head == "score") != (self.page.kind == "score"):
            has, needs = ("one score", "words") if self.model.head == "score" else ("words", "one score")
            raise UsageError(f"{self.spec} answers with {has}, its page {self.page.name} needs {needs}")
        self.tokenizer = load_tokenizer(TokensConfig(tokenizer=self.config.tokenizer or self.spec))
        self.tokenizer.check_fits(self.model.vocab_size, self.spec)
        self.template = self._template()
        self.stops = stop_ids(self.tokenizer, self.template)
        self.context = self.config.context or min(CONTEXT, self.model.max_positions)
        if self.context > self.model.max_positions:
            raise UsageError(
                f"context {self.context} is beyond the {self.model.max_positions} positions of {self.spec}"
            )

    def _template(self) -> ChatTemplate:
        named = self.config.template or self.page.template
        of_page = not self.config.template and named.endswith(".jinja")
        if named != "raw" and not of_page:
            tokens = TokensConfig(template=named, template_options=self.config.template_options)
            return load_template(tokens, self.tokenizer)
        source = prompt_text(named) if of_page else RAW
        return ChatTemplate(source, f"of judge {self.page.name}", self.tokenizer.named_tokens)

    @property
    def max_new_tokens(self) -> int:
        """Longest answer; none for a judge that gives a number."""
        return 0 if self.page.kind == "score" else self.config.max_new_tokens or self.page.max_new_tokens

    @cached_property
    def weights_name(self) -> str:
        """The weights in words: a hub id with its commit, or a folder with a checksum of its files."""
        return self._guarded(self._name_weights)

    def _name_weights(self) -> str:
        if self.spec == "smollm2":
            return self.spec
        folder, name = self._folder, self.spec.partition("@")[0]
        if folder != home(self.spec) and folder.parent.name == "snapshots":  # the hub's cache
            return f"{name}@{folder.name}"
        checksum = hashlib.blake2b(digest_size=6)
        for file in sorted(list_files(folder)):
            if file == "config.json" or file.endswith(".safetensors"):
                checksum.update(file.encode())
                with (folder / file).open("rb") as stream:
                    while chunk := stream.read(_CHUNK):
                        checksum.update(chunk)
        return f"{folder.name} {checksum.hexdigest()}"

    @cached_property
    def identity(self) -> str:
        """Checksum of all that its answer to a question depends on."""
        return digest(
            [
                self.page.name,
                self.page.prompt_hash,
                self.weights_name,
                self.tokenizer.hash,
                self.template.hash,
                [self.max_new_tokens, self.context, self.evaluation.compute_dtype],
            ]
        )

    def check_room(self, question: Question, item: str) -> None:
        """UsageError when not even a request without a response to it fits the context."""
        need = self._longest(self._prompts(replace(question, response="")))
        if need >= self.context:
            raise UsageError(
                f"judge {self.config.name}: item {item!r} takes {need} of the {self.context} tokens of its "
                f"context before anything is judged; raise it, at most to {self.model.max_positions}"
            )

    def show(self, question: Question) -> Shown:
        """The tokens of its prompts, the response cut at its end to what is judged and to what fits."""
        response, cut = question.response, False
        if self.page.response_tokens:
            response, cut = self._first_tokens(response, self.page.response_tokens)
        while True:
            prompts = self._prompts(replace(question, response=response))
            over = self._longest(prompts) - self.context
            if over <= 0 or not response:
                return Shown(prompts, cut)
            length = len(self.tokenizer.encode_plain(response)[0])
            shorter, _ = self._first_tokens(response, max(0, length - over))
            response, cut = shorter if shorter != response else response[:-1], True

    def _longest(self, prompts: Sequence[Sequence[int]]) -> int:
        """Tokens of the longest of the prompts and its answer."""
        return max(map(len, prompts)) + self.max_new_tokens

    def _first_tokens(self, text: str, count: int) -> tuple[str, bool]:
        """The text's first tokens as text, and whether it has more."""
        offsets = self.tokenizer.encode_plain(text)[1]
        return (text, False) if len(offsets) <= count else (text[: offsets[count][0]], True)

    def _prompts(self, question: Question) -> tuple[tuple[int, ...], ...]:
        conversations = self.page.conversations(question)
        return self._guarded(lambda: tuple(map(self._tokens, conversations)))

    def _tokens(self, conversation: Conversation) -> tuple[int, ...]:
        render = render_conversation if self.page.kind == "score" else render_prompt
        return tuple(render(self.tokenizer, self.template, conversation).tolist())

    def _guarded(self, work: Callable[[], T]) -> T:
        """What `work` gives; its errors name the judge."""
        try:
            return work()
        except JaxSftError as error:
            remedy = ""
            if "safe_serialization" in str(error) or "model.safetensors.index" in str(error):
                remedy = (
                    "; where only pickles are published, convert them once: transformers' "
                    f"AutoModelFor{'SequenceClassification' if self.page.kind == 'score' else 'CausalLM'}"
                    f".from_pretrained({self.spec!r}).save_pretrained(FOLDER), then give model=FOLDER"
                )
            elif self.spec == self.page.weights and "the hub" in str(error):
                remedy = f"; licence: {self.page.licence}"
            raise type(error)(f"judge {self.config.name}: {error}{remedy}") from None
