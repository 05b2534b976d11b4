"""Templates that open the thought, tags that are special tokens, thoughts and calls that stand apart."""

from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken

from jax_sft.config import TokensConfig
from jax_sft.errors import UsageError
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.rendering import render_prompt, render_row
from jax_sft.tokens.templates import BUILT_IN, ChatTemplate
from jax_sft.tokens.thoughts import apart, closes_thinking, opens_thinking, together
from jax_sft.tokens.tokenizer import Tokenizer

pytestmark = pytest.mark.short

CHATML = ChatTemplate(BUILT_IN["chatml"], "chatml")
OPENS = ChatTemplate(
    BUILT_IN["chatml"].replace("assistant\\n' }}{% endif", "assistant\\n<think>\\n' }}{% endif"), "opens"
)
"""Like Qwen3.5's."""
DISTILL = ChatTemplate(
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '<|im_start|>' + message['content'] }}"
    "{% else %}{% set content = message['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}{{ content + '<|im_end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|pad|><think>\\n' }}{% endif %}",
    "distill",
)
"""Like that of DeepSeek-R1-Distill."""
ASK = [{"role": "user", "content": "2 + 2?"}]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(TokensConfig())


@pytest.fixture(scope="module")
def flagged(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with think and call tags that are special tokens."""
    backend = tokenizers.Tokenizer.from_str(
        tokenizer.backend.to_str().replace('"special":false', '"special":true')
    )
    tags = ["<tool_call>", "</tool_call>", "<lone>"]
    backend.add_special_tokens([AddedToken(tag, special=True, normalized=False) for tag in tags])
    return Tokenizer("flagged", backend, tokenizer.settings)


@pytest.fixture(scope="module")
def qwen3(golden: Path) -> str:
    return (golden / "templates" / "qwen3.jinja").read_text()


def parts(tokenizer: Tokenizer, template: ChatTemplate, response: Any, **more: Any) -> tuple[str, str]:
    """The prompt and the learnt part of a row, as text."""
    row = render_row(tokenizer, template, "end_of_turn", more.pop("messages", ASK), response, **more)
    split = int(row.is_target.argmax())
    assert row.is_target[split:].all()
    prompt, learnt = (tokenizer.decode(ids.tolist(), False) for ids in (row.ids[:split], row.ids[split:]))
    return prompt, learnt


@pytest.mark.parametrize("template", [OPENS, DISTILL], ids=["opens", "distill"])
@pytest.mark.parametrize(
    "response",
    ["<think>\nok\n</think>\n\n4", "ok\n</think>\n\n4", "<think>ok\n</think>\n\n4", "\nok\n</think>\n\n4"],
)
def test_a_thought_that_the_template_opens_is_opened_once(
    tokenizer: Tokenizer, template: ChatTemplate, response: str
) -> None:
    prompt, learnt = parts(tokenizer, template, response)
    assert prompt == template.render(ASK, add_generation_prompt=True)
    assert prompt.endswith("<think>\n")
    assert learnt == "ok\n</think>\n\n4<|im_end|>"


@pytest.mark.parametrize(
    "response", ["<think>\nok\n</think>\n\n4", "ok\n</think>\n\n4", "\nok\n</think>\n\n4"]
)
def test_a_thought_that_the_template_leaves_to_the_response(tokenizer: Tokenizer, response: str) -> None:
    prompt, learnt = parts(tokenizer, CHATML, response)
    assert prompt == CHATML.render(ASK, add_generation_prompt=True)
    assert learnt == "<think>\nok\n</think>\n\n4<|im_end|>"


def test_an_open_thought_must_be_closed(tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="opens a thought that the response never closes"):
        parts(tokenizer, OPENS, "4")
    with pytest.raises(UsageError, match="opens the thought, but text stands before it"):
        parts(tokenizer, OPENS, "Well. <think>ok</think> 4")
    assert parts(tokenizer, OPENS, "</think>\n\n4")[1] == "</think>\n\n4<|im_end|>"


def test_who_opens_and_who_closes(qwen3: str) -> None:
    off = ChatTemplate(qwen3, "off", {"enable_thinking": False})
    on = ChatTemplate(qwen3, "on")
    assert [opens_thinking(t) for t in (CHATML, OPENS, DISTILL, on, off)] == [False, True, True, False, False]
    assert [closes_thinking(t) for t in (CHATML, OPENS, DISTILL, on, off)] == [
        False,
        False,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(("reasoning", "content"), [("a\nb", "c"), ("\na\n", "\n\nc"), ("", "c"), ("a", "")])
def test_together_and_apart(reasoning: str, content: str) -> None:
    assert apart(together(reasoning, content)) == (reasoning, content)
    assert apart("no thought") == ("", "no thought")


def test_special_tags_are_tokens_where_the_assistant_writes_them(flagged: Tokenizer) -> None:
    assert flagged.tags == {"<think>", "</think>", "<tool_call>", "</tool_call>"}
    spelt = "<think> </think> <tool_call> <|im_end|> <lone>"
    turns = [{"role": "user", "content": spelt}, {"role": "assistant", "content": spelt}, *ASK]
    row = render_row(flagged, CHATML, "end_of_turn", turns, f"<think>\nhm\n</think>\n\n{spelt}")
    text = flagged.decode(row.ids.tolist(), skip_special_tokens=False)
    assert text == CHATML.render(turns, True) + f"<think>\nhm\n</think>\n\n{spelt}<|im_end|>"

    def special(ids: list[int]) -> list[str]:
        names = {number: token for token, number in flagged.special_tokens.items()}
        return [names[number] for number in ids if number in names]

    around = ["<|im_start|>", "<|im_end|>"]
    tags = ["<think>", "</think>", "<tool_call>"]
    asked = [*around, "<|im_start|>", *tags, "<|im_end|>", *around, "<|im_start|>"]
    assert special(row.ids.tolist()) == [*asked, "<think>", "</think>", *tags, "<|im_end|>"]
    assert special(row.ids[row.is_target].tolist()) == ["<think>", "</think>", *tags, "<|im_end|>"]
    assert special(render_prompt(flagged, CHATML, turns).tolist()) == asked


def test_completions_keep_the_tags(flagged: Tokenizer, tokenizer: Tokenizer) -> None:
    ids = flagged.encode("<think>\nhm\n</think>\n\n4<|im_end|>")
    assert flagged.decode(ids) == tokenizer.decode(ids) == "<think>\nhm\n</think>\n\n4"


def test_tags_around_turns_stay_text(tokenizer: Tokenizer) -> None:
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    backend.add_special_tokens([AddedToken(tag, special=True) for tag in ("<bot>", "</bot>", "<s>", "</s>")])
    own = Tokenizer("own", backend, {**tokenizer.settings, "eos_token": "</s>"})
    template = ChatTemplate(
        "{% for m in messages %}"
        "{{ m.content if m.role == 'user' else '<bot>' + m.content + '</bot>' }}{% endfor %}"
        "{% if add_generation_prompt %}<bot>{% endif %}",
        "own",
    )
    row = render_row(own, template, "end_of_turn", ASK, "so </bot> <s> </s>")
    special = [number for number in row.ids.tolist() if number in set(own.special_tokens.values())]
    assert special == [own.token_id("<bot>"), own.token_id("</bot>")]


def test_a_thought_of_its_own_is_written_as_the_template_writes_it(tokenizer: Tokenizer, qwen3: str) -> None:
    turn = {"role": "assistant", "content": "4", "reasoning_content": "two and two"}
    apart_from = ChatTemplate(
        "{% for m in messages %}{{ '<|im_start|>' + m.role }}{% if m.reasoning_content %}"
        "{{ '[THINK]' + m.reasoning_content + '[/THINK]' }}{% endif %}"
        "{{ m.content + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}",
        "brackets",
    )
    assert parts(tokenizer, apart_from, turn)[1] == "[THINK]two and two[/THINK]4<|im_end|>"
    block = "two and two\n</think>\n\n4<|im_end|>"
    assert parts(tokenizer, ChatTemplate(qwen3, "qwen3"), turn)[1] == f"<think>\n{block}"
    assert parts(tokenizer, CHATML, turn)[1] == f"<think>\n{block}"
    assert parts(tokenizer, OPENS, turn)[1] == block
    assert parts(tokenizer, DISTILL, turn)[1] == block
    text_row = render_row(tokenizer, CHATML, "end_of_text", ASK, turn)
    assert tokenizer.decode(text_row.ids[-1:].tolist(), False) == "<|endoftext|>"


TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"a": "int", "b": "int"}}}]
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}


def test_calls_and_tools_go_through_the_template(tokenizer: Tokenizer, qwen3: str) -> None:
    template = ChatTemplate(qwen3, "qwen3")
    turn = {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "add them"}
    prompt, learnt = parts(tokenizer, template, turn, tools=TOOLS)
    assert prompt == template.render(ASK, add_generation_prompt=True, tools=TOOLS)
    assert '"name": "add"' in prompt
    called = '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 2}}\n</tool_call><|im_end|>'
    assert learnt == "<think>\nadd them\n</think>\n\n" + called
    told = [*ASK, turn, {"role": "tool", "content": "4"}]
    prompt, learnt = parts(tokenizer, template, "4", messages=told, tools=TOOLS)
    assert called + "\n<|im_start|>user\n<tool_response>\n4\n</tool_response>" in prompt
    assert learnt == "4<|im_end|>"


def test_what_a_template_does_not_know_is_refused_by_name(tokenizer: Tokenizer) -> None:
    turn = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    with pytest.raises(UsageError, match=r"chatml does not write the answer's tool_calls: .*TypeError"):
        parts(tokenizer, CHATML, turn)
    with pytest.raises(UsageError, match="chatml does not write the answer's tool_calls"):
        parts(tokenizer, CHATML, {**turn, "content": "so"})
    with pytest.raises(UsageError, match="chatml leaves tool_calls out"):
        parts(tokenizer, CHATML, "4", messages=[*ASK, {**turn, "content": "so"}, *ASK])
    with pytest.raises(UsageError, match="chatml leaves the tools out"):
        parts(tokenizer, CHATML, "4", tools=TOOLS)


def test_a_tool_whose_result_the_template_writes_as_json(tokenizer: Tokenizer, golden: Path) -> None:
    """Llama 3.1 escapes the quotes of a tool's JSON, so that its text is not found as it was."""
    source = (golden / "templates" / "llama3_1.jinja").read_text()
    template = ChatTemplate(source, "llama3.1", {"bos_token": ""})
    call = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    turns = [*ASK, call, {"role": "tool", "content": '{"sum": 4}'}]
    prompt = tokenizer.decode(render_prompt(tokenizer, template, turns).tolist(), False)
    assert '"{\\"sum\\": 4}"<|eot_id|>' in prompt
