"""Where the thought of a response meets a chat template: one opening tag, whoever writes it.

Some templates end the prompt with the tag that opens the thought (DeepSeek-R1-Distill, Qwen3.5). A response
may come with that tag or, as such models write it, without.
"""

from functools import lru_cache

from jax_sft.errors import UsageError
from jax_sft.responses.thinking import CLOSE, OPEN
from jax_sft.tokens.templates import ChatTemplate


@lru_cache(maxsize=16)
def opens_thinking(template: ChatTemplate) -> bool:
    """Whether the template opens the thought itself, at the end of every prompt."""
    return _end_of_prompt(template).endswith(OPEN)


@lru_cache(maxsize=16)
def closes_thinking(template: ChatTemplate) -> bool:
    """Whether the template writes an empty thought itself and the answer follows (Qwen3, thinking off)."""
    return _end_of_prompt(template).endswith(CLOSE)


def _end_of_prompt(template: ChatTemplate) -> str:
    return template.render([{"role": "user", "content": "?"}], add_generation_prompt=True).rstrip()


def after_prompt(template: ChatTemplate, prompt: str, response: str) -> str:
    """What a response adds to the text of its prompt, so that its thought is opened once.

    Raises:
        UsageError: the template opens a thought which the response does not close, or not first.
    """
    before, closed, _ = response.partition(CLOSE)
    opened = OPEN in before
    if not opens_thinking(template):
        return response if opened or not closed else OPEN + "\n" + response.removeprefix("\n")
    if not closed:
        raise UsageError(
            f"chat template {template.name} opens a thought that the response never closes; use another "
            f"template, or begin the response with {CLOSE}"
        )
    if not response.lstrip().startswith(OPEN) and opened:
        raise UsageError(f"chat template {template.name} opens the thought, but text stands before it")
    inside = response.lstrip().removeprefix(OPEN) if opened else response
    return inside.removeprefix(prompt[len(prompt.rstrip()) :])


def together(reasoning: str, content: str) -> str:
    """A response of a thought and what is said after it."""
    return f"{OPEN}\n{reasoning}\n{CLOSE}\n\n{content}"


def apart(response: str) -> tuple[str, str]:
    """The thought at the head of a response and what is said after it, without the line breaks between."""
    if not response.startswith(OPEN) or CLOSE not in response:
        return "", response
    reasoning, _, content = response.removeprefix(OPEN).partition(CLOSE)
    return reasoning.removeprefix("\n").removesuffix("\n"), content.removeprefix("\n\n")
