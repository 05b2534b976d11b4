"""Chat templates, token ids and masks against transformers."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
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
