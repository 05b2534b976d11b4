"""Chat templates: the text of transformers (hashes renewed by `make oracle`), and refusals."""

import hashlib
import json
from pathlib import Path

import pytest

from jax_sft.config import Option, TokensConfig
from jax_sft.errors import UsageError
from jax_sft.tokens.loading import load_tokenizer, read_tokenizer
from jax_sft.tokens.templates import BUILT_IN, ChatTemplate, load_template
from jax_sft.tokens.tokenizer import Tokenizer
from tests.conversations import conversations

pytestmark = pytest.mark.short

TURNS = [{"role": "user", "content": "2 + 2?"}]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(TokensConfig())


def test_text_equals_that_of_transformers(golden: Path) -> None:
    stored = json.loads((golden / "templates.json").read_text())
    assert len(stored) >= 7
    for name, hashes in stored.items():
        path = golden / "templates" / f"{name}.jinja"
        source = BUILT_IN[name] if name in BUILT_IN else path.read_text()
        template = ChatTemplate(source, name, {"bos_token": "<s>", "eos_token": "</s>"})
        for messages, wanted in zip(conversations(len(hashes)), hashes, strict=True):
            text = template.render(messages, add_generation_prompt=True, date_string="26 Jul 2024")
            assert hashlib.sha256(text.encode()).hexdigest()[:12] == wanted


def test_built_in_templates() -> None:
    turns = [{"role": "system", "content": "S"}, *TURNS, {"role": "assistant", "content": "4"}, *TURNS]
    assert ChatTemplate(BUILT_IN["chatml"], "").render(turns, add_generation_prompt=True) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n2 + 2?<|im_end|>\n"
        "<|im_start|>assistant\n4<|im_end|>\n<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert ChatTemplate(BUILT_IN["question_answer"], "").render(turns, add_generation_prompt=True) == (
        "S\n\nQuestion:\n2 + 2?\n\nAnswer:\n4\n\nQuestion:\n2 + 2?\n\nAnswer:\n"
    )


def test_qwen3_without_thinking_opens_with_an_empty_thought(golden: Path) -> None:
    source = (golden / "templates" / "qwen3.jinja").read_text()
    on, off = (ChatTemplate(source, "qwen3", {"enable_thinking": value}) for value in (True, False))
    for messages in conversations(50):
        text = on.render(messages, add_generation_prompt=True)
        assert off.render(messages, add_generation_prompt=True) == text + "<think>\n\n</think>\n\n"


def test_chatml_is_qwen2_5_without_its_default_system_prompt(golden: Path) -> None:
    theirs = ChatTemplate((golden / "templates" / "qwen2_5.jinja").read_text(), "qwen2.5")
    ours = ChatTemplate(BUILT_IN["chatml"], "chatml")
    default = theirs.render(TURNS).removesuffix(ours.render(TURNS))
    assert default.startswith("<|im_start|>system\nYou are Qwen")
    for messages in conversations(200):
        added = "" if messages[0]["role"] == "system" else default
        wanted = theirs.render(messages, add_generation_prompt=True)
        assert added + ours.render(messages, add_generation_prompt=True) == wanted


def test_what_transformers_adds_to_jinja() -> None:
    source = (
        "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}"
        "{% generation %}{{ m.content | tojson }}{% endgeneration %}\n{% endfor %}"
    )
    turns = [{"role": "user", "content": content} for content in ("<é'&\"", "b", "c")]
    # The newline after a block goes, as transformers has it.
    assert ChatTemplate(source, "").render(turns) == "".join(['"<é\'&\\""', '"b"'])


def test_options_reach_the_template_and_its_hash(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "think.jinja"
    path.write_text("{{ messages[-1].content }}{% if not thinking %} /no{% endif %}{{ eos_token }}")
    on, off = (
        load_template(TokensConfig(template=str(path), template_options={"thinking": value}), tokenizer)
        for value in (True, False)
    )
    assert on.render(TURNS) == "2 + 2?<|endoftext|>"
    assert off.render(TURNS) == "2 + 2? /no<|endoftext|>"
    assert on.hash != off.hash
    again = load_template(TokensConfig(template=str(path), template_options={"thinking": True}), tokenizer)
    assert again.hash == on.hash


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% if %}", "line 1"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ strftime_now('%d %b %Y') }}", "date_string"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{{ messages.append(1) }}", "SecurityError"),
    ],
)
def test_a_template_that_fails_is_one_clear_line(source: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        ChatTemplate(source, "mine").render(list(TURNS))
    assert "chat template mine" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_such_template(tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="not one of auto, chatml"):
        load_template(TokensConfig(template="chat-ml"), tokenizer)
    bare = Tokenizer("bare", tokenizer.backend, {"eos_token": "<|endoftext|>"})
    with pytest.raises(UsageError, match="bare has no chat template"):
        load_template(TokensConfig(), bare)


OPTIONS = {
    "asked_whether_true": "{% if x is defined and x is true %}on{% endif %}",
    "asked_whether_false": "{% if x is defined and x is false %}{% else %}on{% endif %}",
    "a_condition": "{% if not x %}{% else %}on{% endif %}",
    "with_a_default": "{% if x | default(true) %}on{% endif %}",
    "set_where_missing": "{% set y = x if x is defined else true %}{% if y %}on{% endif %}",
    "compared": "{% if x == true %}on{% endif %}",
}


@pytest.mark.parametrize("use", OPTIONS)
def test_truth_values_as_people_type_them(tokenizer: Tokenizer, tmp_path: Path, use: str) -> None:
    path = tmp_path / "x.jinja"
    path.write_text(OPTIONS[use] + "{{ messages[0].content }}")

    def load(value: Option) -> ChatTemplate:
        return load_template(TokensConfig(template=str(path), template_options={"x": value}), tokenizer)

    for value in ("true", "True", "yes", "On", 1, "1", True):
        assert load(value).render(TURNS) == "on2 + 2?"
    for value in ("false", "False", "no", "OFF", 0, "0", False):
        assert load(value).render(TURNS) == "2 + 2?"
        assert load(value).hash == load(False).hash
    with pytest.raises(
        UsageError, match=r"options x: .* asks whether it is true; write True or False, not 'nay'"
    ):
        load("nay")


def test_text_stays_text_where_the_template_writes_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "x.jinja"
    path.write_text("{% if x %}language {{ x }}: {% endif %}{{ messages[0].content }}")
    template = load_template(TokensConfig(template=str(path), template_options={"x": "no"}), tokenizer)
    assert template.render(TURNS) == "language no: 2 + 2?"
    with pytest.raises(UsageError, match=r"chat template x\.jinja has no 'messsages'; did you mean messages"):
        load_template(TokensConfig(template=str(path), template_options={"messsages": 1}), tokenizer)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("qwen3", {"enable_thinking": "false"}),
        ("llama3_1", {"date_string": "1 Jan '70 \"\\ ☃\U0001f600\n", "tools_in_user_message": False}),
        ("chatml", {}),
        ("internlm2", {"bos_token": ""}),
    ],
)
def test_an_exported_template_knows_its_options(
    golden: Path, tokenizer: Tokenizer, tmp_path: Path, name: str, options: dict[str, Option]
) -> None:
    """Someone who reads the export gives the template what every tokenizer gives it, and no options."""
    path = golden / "templates" / f"{name}.jinja"
    named = name if name in BUILT_IN else str(path)
    with_bos = Tokenizer("bos", tokenizer.backend, {**tokenizer.settings, "bos_token": "<|pad|>"})
    trained = load_template(TokensConfig(template=named, template_options=options), with_bos)
    with_bos.save(tmp_path, trained.portable)
    served = load_template(TokensConfig(tokenizer=str(tmp_path)), read_tokenizer(tmp_path))
    for messages in conversations(30):
        wanted = trained.render(messages, add_generation_prompt=True)
        assert served.render(messages, add_generation_prompt=True) == wanted
    if name == "qwen3":
        assert wanted.endswith("<think>\n\n</think>\n\n")
        again = served.render(messages, add_generation_prompt=True, enable_thinking=True)
        assert again == wanted.removesuffix("<think>\n\n</think>\n\n")
    if not options:
        assert trained.portable == trained.source


@pytest.mark.parametrize(
    "source", ["\n\n  {% if x %}a{% endif %}\n b", "  {% if x %}a{% endif %}", "\tb {{ x }}"]
)
def test_an_exported_template_keeps_its_white_space(source: str) -> None:
    template = ChatTemplate(source, "", {"x": True}, {"x": True})
    assert ChatTemplate(template.portable, "").render(TURNS) == template.render(TURNS)
