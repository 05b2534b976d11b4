"""What is shown before a run: the first row with its learnt part marked, and what is probably not meant."""

from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import AddedToken

from jax_sft.config import DataConfig, ModelConfig, RopeScaling, Run, TokensConfig, replace
from jax_sft.data.batches import Batches
from jax_sft.data.preview import cautions, first_row
from jax_sft.data.rows import TokenisedRows, tokenise
from jax_sft.tasks.rows import Row
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.templates import BUILT_IN, ChatTemplate
from jax_sft.tokens.tokenizer import Tokenizer

TOKENIZER = load_tokenizer(TokensConfig())
CHATML = ChatTemplate(BUILT_IN["chatml"], "chatml")
RUN = Run()
DATA = DataConfig(batch_size=2, row_length=8192, rows_per_micro_batch=1)


def batches(
    *rows: tuple[str, str], template: ChatTemplate = CHATML, tokenizer: Tokenizer = TOKENIZER
) -> Batches:
    made = [Row(str(i), ({"role": "user", "content": q},), r) for i, (q, r) in enumerate(rows)]
    return Batches(tokenise(made, tokenizer, template, "end_of_turn", DATA.row_length), DATA, 0, 1)


def test_the_first_row_with_its_learnt_part_marked() -> None:
    shown = first_row(batches(("héllo\n🎉", "<think>\nhm\n</think>\n\nyes 🎉"), ("b", "c")), TOKENIZER)
    assert shown == (
        "<|im_start|>user\nhéllo\n🎉<|im_end|>\n<|im_start|>assistant\n"
        "⟦<think>\nhm\n</think>\n\nyes 🎉<|im_end|>⟧"
    )


def test_it_is_the_row_that_the_first_step_begins_with() -> None:
    rows = [(f"{number}", "yes") for number in range(8)]
    shuffled = Batches(batches(*rows).rows, replace(DATA, shuffle=True), 3, 1)
    assert f"user\n{shuffled.rows_of_step(1)[0]}<|im_end|>" in first_row(shuffled, TOKENIZER)


def test_long_parts_lose_their_middle_and_nothing_steers_the_terminal() -> None:
    shown = first_row(batches(("a" * 3000 + "\x1b[2J", "b" * 5000), ("b", "c")), TOKENIZER)
    assert len(shown) < 4200
    assert "…" in shown
    assert "\\x1b[2J<|im_end|>" in shown
    assert "\x1b" not in shown
    assert shown.endswith("b<|im_end|>⟧")


def test_parts_learnt_in_the_middle() -> None:
    ids = np.asarray(TOKENIZER.encode("one two three"), np.int32)
    mask = np.zeros(len(ids), bool)
    mask[1:-1] = True
    rows = TokenisedRows(np.tile(ids, 2), np.tile(mask, 2), np.arange(3) * len(ids), np.ones(2, np.float32))
    shown = first_row(Batches(rows, DATA, 0, 1), TOKENIZER)
    assert shown.replace("⟦", "").replace("⟧", "") == "one two three"
    first, last = (TOKENIZER.decode([int(ids[place])]) for place in (0, -1))
    assert shown.startswith(f"{first}⟦")
    assert shown.endswith(f"⟧{last}")


def found(
    run: Run = RUN, template: ChatTemplate = CHATML, tokenizer: Tokenizer = TOKENIZER, response: str = "b"
) -> list[str]:
    made = batches(("a", response), ("c", "d"), template=template, tokenizer=tokenizer)
    return cautions(run, made, tokenizer, template)


def test_nothing_is_said_of_what_is_as_it_should_be() -> None:
    assert found() == []
    assert found(template=ChatTemplate(BUILT_IN["question_answer"], "question_answer")) == []


def test_rows_beyond_the_positions() -> None:
    short = ModelConfig(max_positions=8)
    [line] = found(Run(model=short), response="b " * 20)
    assert line.startswith("the longest row has ")
    assert "positions of the model reach 8" in line
    yarn = RopeScaling("yarn", factor=64.0, original_positions=8)
    assert found(Run(model=replace(short, rope_scaling=yarn)), response="b " * 20) == []


def test_advantages_that_are_not_used() -> None:
    rows = replace(batches(("a", "b"), ("c", "d")).rows, advantage_E=np.asarray([0, 1], np.float32))
    data = replace(DATA, weighting="original")
    assert cautions(Run(data=DATA), Batches(rows, DATA, 0, 1), TOKENIZER, CHATML) == []
    [line] = cautions(Run(data=data), Batches(rows, data, 0, 1), TOKENIZER, CHATML)
    assert line == "rows have an advantage, which data.weighting original does not use; choose another"


def test_marks_that_the_tokenizer_lacks() -> None:
    bare = tokenizers.Tokenizer.from_str(TOKENIZER.backend.to_str().replace("<|im_start|>", "<|turn|>"))
    [line] = found(tokenizer=Tokenizer("bare", bare, TOKENIZER.settings))
    assert line.startswith("chat template chatml writes <|im_start|>, for which tokenizer bare has no token")


def test_an_end_of_turn_that_is_not_flagged() -> None:
    plain = tokenizers.Tokenizer.from_str(TOKENIZER.backend.to_str().replace("<|im_end|>", "<|other|>"))
    plain.add_tokens([AddedToken("<|im_end|>", special=False, normalized=False)])
    tokenizer = Tokenizer("plain", plain, TOKENIZER.settings)
    [line] = found(tokenizer=tokenizer)
    assert "ends a turn with '<|im_end|>'" in line
    assert line.endswith("flags no special token: responses end with <|endoftext|> instead")
    assert found(Run(tokens=TokensConfig(end="end_of_text")), tokenizer=tokenizer) == []


def test_responses_that_think_after_a_closed_thought(golden: Path) -> None:
    source = (golden / "templates" / "qwen3.jinja").read_text()
    off = ChatTemplate(source, "qwen3", {"enable_thinking": False})
    assert found(template=off) == []
    [line] = found(template=off, response="<think>\nhm\n</think>\n\nb")
    assert line.startswith("chat template qwen3 writes an empty thought, and the responses think after it")
