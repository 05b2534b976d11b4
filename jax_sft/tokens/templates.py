"""Chat templates: jinja text that turns a conversation into what a model sees, as transformers does it."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from jax_sft.config import Option, TokensConfig
from jax_sft.errors import UsageError
from jax_sft.files import home
from jax_sft.tokens.template_options import fitted_options, with_options
from jax_sft.tokens.tokenizer import NAMED_TOKENS, Tokenizer

Message = Mapping[str, Any]

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
QUESTION_ANSWER = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'Question:\\n' + message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Answer:\\n' + message['content'] + '\\n\\n' }}"
    "{% else %}{{ message['content'] + '\\n\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Answer:\\n' }}{% endif %}"
)
INTERNLM2 = "{{ bos_token }}" + CHATML
BUILT_IN = {"chatml": CHATML, "question_answer": QUESTION_ANSWER, "internlm2": INTERNLM2}
"""`chatml` is also Qwen2.5's own template without the system prompt that it adds by default."""


@dataclass(frozen=True, eq=False)
class ChatTemplate:
    """One jinja template with the variables it always sees."""

    source: str
    name: str
    variables: Mapping[str, Any] = field(default_factory=dict)
    """Values for every rendering: the tokenizer's `bos_token` and its kin, the study's template options."""
    options: Mapping[str, Option] = field(default_factory=dict)
    """Those of the variables that are the study's template options."""

    @cached_property
    def hash(self) -> str:
        """sha256 of the source and the variables: two runs with the same hash render the same text."""
        described = json.dumps([self.source, dict(self.variables)], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(described.encode()).hexdigest()

    def render(
        self, messages: Sequence[Message], add_generation_prompt: bool = False, **variables: Any
    ) -> str:
        """The text of a conversation, character for character what transformers' template engine writes.

        Args:
            messages: turns with `role` and `content`.
            add_generation_prompt: end with the header that opens the assistant's turn.
            variables: more values for the template, for example `enable_thinking=False`.

        Raises:
            UsageError: the template does not parse, fails, or refuses the conversation.
        """
        values = {"tools": None, "documents": None, **self.variables, **variables}
        try:
            return self._compiled.render(
                messages=messages, add_generation_prompt=add_generation_prompt, **values
            )
        except UsageError:
            raise
        except Exception as error:  # a template can raise anything that python can
            raise UsageError(f"chat template {self.name}: {type(error).__name__}: {error}") from None

    @cached_property
    def portable(self) -> str:
        """Jinja text that renders the same for those who do not know the options, such as a server."""
        return with_options(self.source, self.options, NAMED_TOKENS)

    @cached_property
    def _compiled(self) -> jinja2.Template:
        return self._environment.from_string(self.tree)

    @cached_property
    def tree(self) -> nodes.Template:
        """The template as jinja reads it; UsageError when it cannot."""
        try:
            return self._environment.parse(self.source)
        except jinja2.TemplateSyntaxError as error:
            raise UsageError(f"chat template {self.name}, line {error.lineno}: {error.message}") from None

    @cached_property
    def _environment(self) -> jinja2.Environment:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = self._refuse
        environment.globals["strftime_now"] = self._refuse_date
        return environment

    def _refuse(self, message: str) -> None:
        raise UsageError(f"chat template {self.name} refuses the conversation: {message}")

    def _refuse_date(self, _format: str) -> None:
        # Today's date would make tomorrow's run see other text than today's.
        raise UsageError(
            f"chat template {self.name} writes today's date; fix it with tokens.template-options, "
            "for example `date_string '26 Jul 2024'` for Llama 3"
        )


def load_template(config: TokensConfig, tokenizer: Tokenizer) -> ChatTemplate:
    """The template a study names: the tokenizer's own, a built-in one, or a jinja file.

    Raises:
        UsageError: `auto` and the tokenizer has none, no such name or file, or an option it does not have.
    """
    bare = _named_template(config.template, tokenizer)
    options = fitted_options(config.template_options, bare.tree, bare.name)
    return replace(bare, variables={**tokenizer.named_tokens, **options}, options=options)


def _named_template(name: str, tokenizer: Tokenizer) -> ChatTemplate:
    """The template without values for its variables."""
    if name == "auto":
        if tokenizer.chat_template is None:
            raise UsageError(
                f"tokenizer {tokenizer.name} has no chat template; "
                f"set tokens.template to {' or '.join(BUILT_IN)} or a jinja file"
            )
        return ChatTemplate(tokenizer.chat_template, f"of {tokenizer.name}")
    if name in BUILT_IN:
        return ChatTemplate(BUILT_IN[name], name)
    path = home(name)
    if not path.is_file():
        raise UsageError(f"tokens.template {path}: no such file, and not one of auto, {', '.join(BUILT_IN)}")
    return ChatTemplate(path.read_text(), path.name)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own `tojson` escapes HTML, which chat templates do not want."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


class _GenerationTag(jinja2.ext.Extension):
    """Accepts `{% generation %}…{% endgeneration %}`, which marks the assistant's text for trainers."""

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self.tags = {"generation"}

    def parse(self, parser: Any) -> nodes.Node:
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_pass_through"), [], [], body).set_lineno(lineno)

    def _pass_through(self, caller: Callable[[], str]) -> str:
        return caller()
