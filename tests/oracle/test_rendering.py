"""Chat templates, token ids and masks against transformers."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import transformers

from jax_sft.config import TokensConfig
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.rendering import render_prompt, render_row
from jax_sft.tokens.templates import BUILT_IN, ChatTemplate, load_template
from jax_sft.tokens.tokenizer import Tokenizer
from tests.conversations import conversations, responses

pytestmark = pytest.mark.oracle
COUNT = 200


def their_tokenizer(tokenizer: Tokenizer, folder: Path) -> transformers.PreTrainedTokenizerFast:
    tokenizer.save(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


def sources(golden: Path) -> dict[str, str]:
    files = {path.stem: path.read_text() for path in sorted((golden / "templates").glob("*.jinja"))}
    return {**files, **BUILT_IN}


def test_templates_render_the_same_text(golden: Path, tmp_path: Path, renew_golden: bool) -> None:
    theirs = their_tokenizer(load_tokenizer(TokensConfig()), tmp_path)
    hashes: dict[str, list[str]] = {}
    for name, source in sources(golden).items():
        template = ChatTemplate(source, name, {"bos_token": "<s>", "eos_token": "</s>"})
        hashes[name] = []
        for messages in conversations(COUNT):
            variables = {"date_string": "26 Jul 2024", "bos_token": "<s>", "eos_token": "</s>"}
            wanted = theirs.apply_chat_template(
                messages, chat_template=source, add_generation_prompt=True, tokenize=False, **variables
            )
            assert template.render(messages, add_generation_prompt=True, date_string="26 Jul 2024") == wanted
            hashes[name].append(hashlib.sha256(wanted.encode()).hexdigest()[:12])
    if renew_golden:
        (golden / "templates.json").write_text(json.dumps(hashes, indent=0) + "\n")
    assert json.loads((golden / "templates.json").read_text()) == hashes


@pytest.mark.parametrize("name", ["miniature", "smollm2"])
def test_prompts_have_the_same_tokens(name: str, tmp_path: Path) -> None:
    config = TokensConfig(tokenizer=name)
    tokenizer = load_tokenizer(config)
    template = load_template(config, tokenizer)
    theirs = their_tokenizer(tokenizer, tmp_path)
    assert theirs.eos_token_id == tokenizer.eos_id
    assert theirs.pad_token_id == tokenizer.pad_id
    assert len(theirs) == tokenizer.vocab_size
    for messages in conversations(COUNT):
        wanted = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert render_prompt(tokenizer, template, messages).tolist() == wanted
        assert tokenizer.decode(wanted, skip_special_tokens=True) == theirs.decode(
            wanted, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )


def test_rows_have_the_same_tokens_and_mask(tmp_path: Path) -> None:
    """The reference is a ChatML template whose generation span is the response and its end token."""
    tokenizer = load_tokenizer(TokensConfig())
    marked = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
        "{% if loop.last %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
        "{% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    )
    theirs = their_tokenizer(tokenizer, tmp_path)
    template = load_template(TokensConfig(), tokenizer)
    for messages, response in zip(conversations(COUNT), responses(COUNT), strict=True):
        wanted = theirs.apply_chat_template(
            [*messages, {"role": "assistant", "content": response}],
            chat_template=marked,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        row = render_row(tokenizer, template, "end_of_turn", messages, response)
        np.testing.assert_array_equal(row.ids, wanted["input_ids"])
        np.testing.assert_array_equal(row.is_target, np.asarray(wanted["assistant_masks"], bool))


def test_special_tags_have_the_same_tokens(tmp_path: Path) -> None:
    """Think tags and calls that are flagged special are tokens where the assistant writes them."""
    plain = load_tokenizer(TokensConfig())
    flagged = plain.backend.to_str().replace('"special":false', '"special":true')
    backend = tokenizers.Tokenizer.from_str(flagged)
    calls = ("<tool_call>", "</tool_call>")
    backend.add_special_tokens([tokenizers.AddedToken(tag, special=True) for tag in calls])
    tokenizer = Tokenizer("flagged", backend, plain.settings)
    theirs = their_tokenizer(tokenizer, tmp_path)
    template = load_template(TokensConfig(), tokenizer)
    for messages, response in zip(conversations(COUNT), responses(COUNT), strict=True):
        # What others spell stays text, unlike in transformers.
        asked = [
            turn | {"content": turn["content"].replace("think>", "t>")}
            if turn["role"] != "assistant"
            else turn
            for turn in messages
        ]
        answer = response + '<tool_call>\n{"name": "f"}\n</tool_call>'
        turns = [*asked, {"role": "assistant", "content": answer}]
        wanted = theirs.apply_chat_template(turns, return_dict=False)
        row = render_row(tokenizer, template, "end_of_turn", asked, answer)
        assert row.ids.tolist() == wanted[: len(row.ids)]
        kept = theirs.decode(wanted, skip_special_tokens=False)
        for token in ("<|im_start|>", "<|im_end|>"):
            kept = kept.replace(token, "")
        assert tokenizer.decode(wanted) == kept


def test_thoughts_calls_and_tools_have_the_same_tokens(golden: Path, tmp_path: Path) -> None:
    """Turns with fields of their own, as Qwen3's template writes them."""
    source = (golden / "templates" / "qwen3.jinja").read_text()
    tokenizer = load_tokenizer(TokensConfig())
    theirs = their_tokenizer(tokenizer, tmp_path)
    tools = [{"type": "function", "function": {"name": "add", "description": "é", "parameters": {"a": [1]}}}]
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
    for messages, response in zip(conversations(COUNT), responses(COUNT), strict=True):
        called = {"role": "assistant", "content": None, "tool_calls": [call]}
        asked = [*messages, called, {"role": "tool", "content": "4"}]
        turn = {"role": "assistant", "content": "4", "reasoning_content": response, "tool_calls": [call]}
        if "think>" in response:
            continue
        turns = [*asked, turn]
        wanted = theirs.apply_chat_template(turns, chat_template=source, tools=tools, return_dict=False)
        row = render_row(tokenizer, ChatTemplate(source, "qwen3"), "end_of_turn", asked, turn, tools)
        assert row.ids.tolist() == wanted[: len(row.ids)]
        assert len(wanted) == len(row.ids) + 1
        prompt = theirs.apply_chat_template(
            asked, chat_template=source, tools=tools, add_generation_prompt=True, return_dict=False
        )
        assert row.is_target.tolist() == [False] * len(prompt) + [True] * (len(row.ids) - len(prompt))


def test_an_exported_template_serves_what_was_trained(golden: Path, tmp_path: Path) -> None:
    options = {
        "qwen3": {"enable_thinking": False},
        "llama3_1": {"date_string": "1 Jan '70 \"\\ ☃\U0001f600", "tools_in_user_message": False},
    }
    tokenizer = load_tokenizer(TokensConfig())
    for name, chosen in options.items():
        source = (golden / "templates" / f"{name}.jinja").read_text()
        trained = ChatTemplate(source, name, {**tokenizer.named_tokens, "bos_token": "<s>", **chosen}, chosen)
        tokenizer.save(tmp_path / name, trained.portable)
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / name)
        for messages in conversations(50):
            said = theirs.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, bos_token="<s>"
            )
            assert said == trained.render(messages, add_generation_prompt=True)
