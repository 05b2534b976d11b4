"""Tasks asked by likelihood: their items, and what verdicts follow from given likelihoods."""

import math
from pathlib import Path

import numpy as np
import pytest

from jax_sft.config import BenchmarkConfig, TokensConfig
from jax_sft.errors import UsageError
from jax_sft.evaluation.likelihood import Reader, questions
from jax_sft.statistics.intervals import Estimate
from jax_sft.study.likelihoods import Likelihood
from jax_sft.study.records import Item
from jax_sft.tasks.given_rows import GivenRows
from jax_sft.tasks.likelihood import LikelihoodTask
from jax_sft.tasks.rows import Row
from jax_sft.tasks.task import get_task, load_items, task_modules, user
from jax_sft.tasks.truthfulqa import PRIMER
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.templates import load_template

TRUTHFUL = """Question,Best Answer,Correct Answers,Incorrect Answers
What is up?,The sky,The sky; Above; The sky,The floor; Nothing
"""


def likelihood_task(name: str) -> LikelihoodTask:
    task = get_task(name)
    assert isinstance(task, LikelihoodTask)
    return task


def found(*logprobs: float, tokens: int = 2) -> list[Likelihood]:
    return [Likelihood(logprob, tokens, False) for logprob in logprobs]


def test_truthfulqa_weighs_true_answers_against_false_ones(tmp_path: Path) -> None:
    (tmp_path / "truthful.csv").write_text(TRUTHFUL)
    config = BenchmarkConfig("truthfulqa_mc", path="truthful.csv")
    [item], task = load_items(config, str(tmp_path)), likelihood_task("truthfulqa_mc")
    assert item.messages == user("What is up?")
    assert task.continuations(item) == ("The sky", "Above", "The floor", "Nothing")
    verdict = task.weigh(item, found(-3.0, -2.0, -4.0, -2.5))
    p = np.exp([-3.0, -2.0, -4.0, -2.5])
    assert verdict.metrics["mc2"] == pytest.approx(p[:2].sum() / p.sum())
    assert verdict.metrics["mc1"] == 0.0, "a false answer is likelier than the best one"
    assert verdict.answer == "Above"
    assert task.weigh(item, found(-2.4, -9.0, -2.6, -2.5)).metrics["mc1"] == 1.0
    # Sums of long answers underflow exp; their shares do not.
    assert task.weigh(item, found(-900.0, -901.0, -905.0, -999.0)).metrics["mc2"] == pytest.approx(
        (1 + math.exp(-1)) / (1 + math.exp(-1) + math.exp(-5))
    )


def test_plain_truthfulqa_is_asked_as_its_authors_did(tmp_path: Path) -> None:
    (tmp_path / "truthful.csv").write_text(TRUTHFUL)
    config = BenchmarkConfig("truthfulqa_mc", path="truthful.csv", options={"plain": True})
    [item], task = load_items(config, str(tmp_path)), likelihood_task("truthfulqa_mc")
    assert task.plain(item)
    assert item.messages[0]["content"] == f"{PRIMER}Q: What is up?\nA:"
    assert PRIMER.count("\nA: ") == 6


def test_real_truthfulqa(shared_data: Path) -> None:
    items = load_items(BenchmarkConfig("truthfulqa_mc"), str(shared_data))
    assert len(items) == 817
    for item in items:
        reference = item.reference
        assert 0 in reference["true"]
        assert len(reference["false"]) >= 1
        assert sorted({*reference["true"], *reference["false"]}) == list(range(len(reference["choices"])))


def test_all_choices_are_asked_for_and_the_right_one_is_known(shared_data: Path) -> None:
    """Shuffled likelihoods score at chance, and the right option wins where it is likeliest."""
    rng = np.random.default_rng(0)
    for name, count, options in (
        ("mmlu_likelihood", 14_042, {"shots": 5, "plain": True}),
        ("mmlu_pro_likelihood", 1_400, {}),
        ("commonsenseqa_likelihood", 1_221, {"choices": "text"}),
    ):
        task = likelihood_task(name)
        items = load_items(BenchmarkConfig(name, options=options), str(shared_data))
        assert len(items) == count
        hits, chance, by_size = 0.0, 0.0, 0.0
        for item in items:
            choices, right = task.continuations(item), item.reference["right"]
            hits += task.weigh(item, found(*-rng.random(len(choices)))).metrics["accuracy"]
            best = found(*(-1.0 if place == right else -2.0 for place in range(len(choices))))
            by_size += task.weigh(item, best).metrics["accuracy"]
            chance += 1 / len(choices)
        assert by_size == count
        assert abs(hits - chance) < 4 * chance**0.5


def test_mmlu_in_the_form_of_its_authors(shared_data: Path) -> None:
    config = BenchmarkConfig("mmlu_likelihood", limit=1, options={"shots": 5, "plain": True})
    [item] = load_items(config, str(shared_data))
    [turn] = item.messages
    assert turn["content"].startswith("The following are multiple choice questions (with answers) about ")
    assert turn["content"].endswith("\nAnswer:")
    assert turn["content"].count("\nAnswer:") == 6
    assert item.reference["choices"] == ["A", "B", "C", "D"]


def test_rows_are_weighed_by_token_row_and_byte() -> None:
    task = get_task("rows")
    assert isinstance(task, GivenRows)
    row = Row("r", ({"role": "user", "content": "hi"},), "né")
    item = task.item_of(row)
    assert task.continuations(item) == ("né",)
    verdict = task.weigh(item, found(-6.0, tokens=4))
    assert verdict.metrics["nll"] == verdict.metrics["nll_of_row"] == 1.5
    assert verdict.metrics["bits_per_byte"] == pytest.approx(6 / math.log(2) / 3)
    weighed = Item(item.id, item.messages, {**item.reference, "tokens": 4})
    assert [task.weight(weighed, name) for name in ("nll", "nll_of_row", "bits_per_byte")] == [4, 1, 3]
    perplexity = task.derived({"nll": Estimate(1.5, 1.0, 2.0, 7)})["perplexity"]
    assert (perplexity.mean, perplexity.low, perplexity.high, perplexity.n) == pytest.approx(
        (math.exp(1.5), math.e, math.exp(2), 7)
    )


def test_no_completion_is_judged_by_likelihood() -> None:
    likely = [name for name in task_modules() if get_task(name).ask == "likelihood"]
    assert len(likely) >= 6
    for name in likely:
        with pytest.raises(UsageError, match="is judged by likelihoods"):
            get_task(name).verdict(Item("x", user("?"), {"choices": ["a"]}), "a", "stop")


def test_plain_items_are_tokenised_as_one_text_and_cut_at_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by parts of all items; what is asked of a scorer holds the choices of one prompt together."""
    monkeypatch.setattr("jax_sft.evaluation.likelihood.TOKENISED_AT_ONCE", 2)
    tokens = TokensConfig()
    tokenizer = load_tokenizer(tokens)
    reader = Reader(tokenizer, load_template(tokens, tokenizer), tokens.end)
    items = [
        Item(str(n), user(f"What is {n}?\nAnswer:"), {"choices": ["one", "not two"], "plain": True})
        for n in range(5)
    ]
    asked = questions(likelihood_task("mmlu_likelihood"), items, reader)
    for item in items:
        [(given, places)] = asked[item.id].given("b/x")
        assert places == (0, 1)
        assert list(given.prompt) == tokenizer.encode_plain(item.messages[0]["content"])[0]
        for continuation, choice in zip(given.continuations, ("one", "not two"), strict=True):
            whole = tokenizer.encode_plain(f"{item.messages[0]['content']} {choice}")[0]
            assert [*given.prompt, *continuation] == whole
