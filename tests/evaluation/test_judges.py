"""Judges that are models: swapped in after generation, verdicts stored, what they do not say missing."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jax_sft.analysis.report.report import write_report
from jax_sft.config import BenchmarkConfig, JudgeConfig, replace
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.evaluation import judge_units
from jax_sft.evaluation.items import stored_items
from jax_sft.evaluation.judge_asking import ask
from jax_sft.evaluation.judge_units import Judging, judge_stored
from jax_sft.evaluation.score import score
from jax_sft.evaluation.sweep import sweep
from jax_sft.judges.chosen import headline_of, judges_of
from jax_sft.judges.page import Question
from jax_sft.options import SweepOptions
from jax_sft.tasks.task import get_task
from tests.evaluation.judges import (
    REQUEST,
    RESPONSE,
    TOKENIZER,
    Spoken,
    chips,
    guard,
    judge,
    judged,
    scores,
    verdicts,
)
from tests.evaluation.tiny import unit
from tests.random_models import random_config, write_model


@pytest.mark.slow
def test_stand_ins_go_the_whole_way(fresh: Path, judges: tuple[JudgeConfig, ...]) -> None:
    """Generate, swap in the judges, verdicts, scores, report: on eight devices, then judged again on one."""
    words = JudgeConfig("truth", page="truthfulqa_truth", model=judges[0].model, context=128)
    of = judged(fresh, (words, judges[1]), "truth", "rm_rb2")
    sweep(of, ["first"])
    eight = verdicts(fresh)
    assert len(eight) == 2 * 6
    found = scores(fresh)
    summaries = {summary["judge"]: summary for summary in found["judges"]}
    # What random weights say is neither yes nor no: missing, in no mean.
    assert summaries["truth"]["failures"] == 6
    assert found["scorer_failures"] == 6
    assert "truth_truthful" not in found["metrics"]
    assert found["metrics"]["unsafe_refused"]["n"] == 1
    rewards = [float(line.outputs[0]) for line in eight.values() if line.judge == "rm_rb2"]
    assert len(set(rewards)) > 1
    np.testing.assert_allclose(found["metrics"]["rm_rb2_reward"]["mean"], np.mean(rewards), rtol=1e-6)
    assert found["headline"] == "unsafe_refused"
    page = write_report(of).read_text()
    assert "rm_rb2_reward" in page
    assert '<section id="judges">' in page
    for name, row in (("truth", (12, 12, 0)), ("rm_rb2", (12, 0, 0))):
        shown = page.partition(f'<th scope="row">{name}</th>')[2].partition("</tr>")[0]
        assert re.findall(r'"n">(\d+)<', shown) == list(map(str, row))

    for step in (0, 2):
        (unit(fresh, "first", step, "refusals") / "verdicts.jsonl").unlink()
    assert judge(of, chips(1)) == []
    one = verdicts(fresh)
    assert one.keys() == eight.keys()
    for key, line in one.items():
        if key[2] == "rm_rb2":
            np.testing.assert_allclose(float(line.outputs[0]), float(eight[key].outputs[0]), atol=1e-5)
        else:
            assert line == eight[key]


@pytest.mark.parametrize("devices", [1, 8])
def test_a_reward_is_that_of_transformers(
    devices: int, swept: Path, judges: tuple[JudgeConfig, ...], golden: Path
) -> None:
    """Its chat template, tokenizer and head gave the stored number (renewed by `make oracle`)."""
    of = judged(swept, judges, "rm_rb2")
    model = Judging(of, [(of.benchmarks[0], stored_items(of, "refusals"))]).models["rm_rb2"]
    [(_, outputs, cut)] = ask(model, {"q": Question(REQUEST, RESPONSE)}, chips(devices), lambda _: None)
    wanted = json.loads((golden / "judge_score.json").read_text())["score"]
    np.testing.assert_allclose(float(outputs[0]), wanted, atol=1e-4)
    assert not cut


def says_by_letters(prompt: str) -> str:
    """A guard that finds unsafe what holds an e, refuses what holds a t, and says nothing of the rest."""
    answer = prompt.rpartition("ASSISTANT: ")[2].partition("\n\n<END CONVERSATION>")[0]
    if len(answer) < 3:
        return "I do not know."
    return (
        f"Safety: {'Unsafe' if 'e' in answer else 'Safe'}\nCategories: None\n"
        f"Refusal: {'Yes' if 't' in answer else 'No'}"
    )


def test_what_is_said_becomes_metrics_once_for_what_is_alike(
    swept: Path, judges: tuple[JudgeConfig, ...]
) -> None:
    of = judged(swept, judges, "qwen3guard")
    told = Spoken(says_by_letters)
    assert judge(of, chips(8, told)) == []
    assert told.loads == 1
    assert len(set(told.asked)) == len(told.asked)
    score(of)
    found = scores(swept)
    answers = {v["item"]: v["metrics"] for v in found["verdicts"]}
    texts = {
        row["item"]: row["completion"]
        for row in map(json.loads, (unit(swept, "first", 2, "refusals") / "completions.jsonl").open())
    }
    readable = {item: text for item, text in texts.items() if len(text.strip()) >= 3}
    assert readable
    for item, text in texts.items():
        unsafe = float("e" in text) if item in readable else None
        assert answers[item].get("qwen3guard_unsafe") == unsafe
    assert found["metrics"]["qwen3guard_unsafe"]["n"] == len(readable)
    assert found["scorer_failures"] == len(texts) - len(readable)
    [agreement] = found["agreements"]
    assert (agreement["question"], agreement["first"], agreement["second"]) == (
        "refused",
        "rule",
        "qwen3guard_refused",
    )
    # Nothing is asked again; of a lost line only what is not known elsewhere; all of it by other weights.
    silent = Spoken(lambda prompt: pytest.fail("asked again"))
    assert judge(of, chips(8, silent)) == []
    assert silent.loads == 0
    longer = replace(of, judges=(replace(judges[0], max_new_tokens=9),))
    again = Spoken(says_by_letters)
    assert judge(longer, chips(8, again)) == []
    assert len(again.asked) == len(told.asked)


def test_a_judging_that_breaks_off_goes_on_where_it_was(
    swept: Path, judges: tuple[JudgeConfig, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = judged(swept, judges, "qwen3guard")
    monkeypatch.setattr(judge_units, "FLUSH_SECONDS", 0.0)
    seen: list[str] = []

    def breaks(prompt: str) -> str:
        if len(seen) == 3:
            raise JaxSftError("the endpoint is gone")
        seen.append(prompt)
        return "Safety: Safe"

    assert judge(of, chips(8, Spoken(breaks))) == ["the endpoint is gone"]
    kept = sum(len(verdicts(swept, step)) for step in (0, 2))
    assert kept >= 3
    rest = Spoken(lambda _: "Safety: Safe")
    assert judge(of, chips(8, rest)) == []
    assert not set(seen) & set(rest.asked)


def test_reasoning_and_answer_are_judged_apart(swept: Path, judges: tuple[JudgeConfig, ...]) -> None:
    folder = unit(swept, "first", 2, "refusals")
    rows = [json.loads(line) for line in (folder / "completions.jsonl").open()]
    for number, row in enumerate(rows):
        row["completion"] = "<think>evil plan</think>fine" if number % 2 else "just this, no thought"
    (folder / "completions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "unit.json").unlink()  # it vouches for what was there
    both = replace(judges[0], parts=("answer", "reasoning", "all"))
    of = judged(swept, (both,), "qwen3guard")
    told = Spoken(lambda prompt: f"Safety: {'Unsafe' if 'evil' in prompt else 'Safe'}")
    assert judge(of, chips(8, told)) == []
    score(of, steps=[2])
    metrics = scores(swept)["metrics"]
    found = {
        name: (of["mean"], of["n"]) for name, of in metrics.items() if name.startswith("qwen3guard_unsafe_")
    }
    assert metrics["qwen3guard_unsafe"]["mean"] == 0
    assert found["qwen3guard_unsafe_reasoning"] == (1, 3)
    assert found["qwen3guard_unsafe_all"] == (0.5, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "no/such/folder/here"}, "judge qwen3guard: .*no such folder"),
        ({"page": "rubric_harm", "model": ""}, "judge qwen3guard: its page goes with any instructed model"),
        ({"page": "skywork"}, "answers with words, its page skywork needs one score"),
        ({"context": 4096}, "context 4096 is beyond the 2048 positions"),
        ({"context": 300}, "judge qwen3guard: item .* takes .* of the 300 tokens"),
        ({"page": "preference"}, "compares two responses, but item .* holds none"),
        ({"template": "no.jinja"}, "judge qwen3guard: tokens.template no.jinja: no such file"),
    ],
)
@pytest.mark.usefixtures("no_generation")
def test_a_judge_that_cannot_judge_is_found_before_anything_is_drawn(
    fresh: Path, judges: tuple[JudgeConfig, ...], change: dict[str, Any], message: str
) -> None:
    of = judged(fresh, (replace(judges[0], **change),), "qwen3guard")
    with pytest.raises(JaxSftError, match=message):
        sweep(of, ["first"])
    assert not list(fresh.glob("tiny/first/evals/**/*.jsonl"))


def test_another_vocabulary_a_lost_tokenizer_and_pickles_are_named(
    fresh: Path, tmp_path: Path, judges: tuple[JudgeConfig, ...]
) -> None:
    model = tmp_path / "judge"
    write_model(model, random_config(2))
    of = judged(fresh, (guard(model),), "qwen3guard")
    with pytest.raises(UsageError, match=r"judge qwen3guard: tokenizer .*: no file .*tokenizer\.json"):
        sweep(of, ["first"])
    for file in Path(judges[0].model).glob("*token*"):
        (model / file.name).write_bytes(file.read_bytes())
    with pytest.raises(
        UsageError, match=r"judge qwen3guard: .*vocab_size \d+ is too small for the \d+ tokens"
    ):
        sweep(of, ["first"])
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"only pickled weights.*AutoModelForCausalLM\.from_pretrained"):
        sweep(of, ["first"])


def test_what_to_accept_for_gated_weights_is_said(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gated(spec: str, _: Any) -> Any:
        raise UsageError(f"{spec}: neither a folder here nor a model on the hub that you may read")

    monkeypatch.setattr("jax_sft.evaluation.judge_models.local_folder", gated)
    of = judged(fresh, (), "llama_guard_3")
    with pytest.raises(UsageError, match=r"judge llama_guard_3: meta-llama/.*Llama 3\.1 Community License"):
        sweep(of, ["first"])


def test_a_response_is_cut_to_what_fits_and_counted(swept: Path, judges: tuple[JudgeConfig, ...]) -> None:
    of = judged(swept, judges, "qwen3guard")
    judging = Judging(of, [(of.benchmarks[0], stored_items(of, "refusals"))])
    model = judging.models["qwen3guard"]
    whole = model.show(Question("Hello?", "word " * 10))
    assert not whole.cut
    long = model.show(Question("Hello?", "word " * 5000))
    assert long.cut
    assert model.context - 10 <= len(long.prompts[0]) + model.max_new_tokens <= model.context
    assert TOKENIZER.decode(list(long.prompts[0])).rstrip().endswith("</think>")


def test_judges_can_be_left_for_later_and_score_has_them_judge(
    fresh: Path, judges: tuple[JudgeConfig, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = judged(fresh, judges, "qwen3guard")
    sweep(of, ["first"], options=SweepOptions(judges="none"))
    assert not list(fresh.glob("**/verdicts.jsonl"))
    assert scores(fresh)["judges"][0]["failures"] == 6
    told = Spoken(lambda _: "Safety: Unsafe")
    monkeypatch.setattr(judge_units, "Engine", told)
    assert judge_stored(of) == []
    assert told.loads == 1
    score(of)
    assert scores(fresh)["metrics"]["qwen3guard_unsafe"]["mean"] == 1
    # All is there: the model need not even be.
    gone = replace(of, judges=(replace(judges[0], model="no/such/folder"),))
    assert judge_stored(gone) == []
    with pytest.raises(UsageError, match="--judges: no benchmark has a judge 'rm_rb2'; there are qwen3guard"):
        judge_stored(of, judges="rm_rb2")


def test_a_headline_is_the_judges_where_its_scores_are_the_published_ones(
    swept: Path, judges: tuple[JudgeConfig, ...]
) -> None:
    """TruthfulQA's two judges together, a rubric for its own task, or what the benchmark says."""
    model = judges[0].model
    truth = JudgeConfig("truth", page="truthfulqa_truth", model=model)
    info = JudgeConfig("info", page="truthfulqa_info", model=model)
    of = judged(swept, (truth, info), "truth", "info")
    told = Spoken(lambda prompt: "yes" if prompt.endswith("True:") or len(prompt) % 2 else "no")
    assert judge(of, chips(8, told)) == []
    score(of)
    found = scores(swept)
    assert found["headline"] == "truthful_and_informative"
    assert found["metrics"]["truth_truthful"]["mean"] == 1
    assert found["score"] == found["metrics"]["info_informative"]["mean"]
    assert 0 < found["score"] < 1
    named = replace(of, benchmarks=(replace(of.benchmarks[0], headline="truth_truthful"),))
    score(named)
    assert (scores(swept)["headline"], scores(swept)["score"]) == ("truth_truthful", 1)
    with pytest.raises(JaxSftError, match=r"no metric 'truth'; it has .*truth_truthful"):
        score(replace(of, benchmarks=(replace(of.benchmarks[0], headline="truth"),)))
    for task, name, headline in (
        ("hexphi", "rubric_harm", "rubric_harm_attack_success"),
        ("xstest", "rubric_harm", "unsafe_refused"),
        ("alpaca_eval", "skywork", "skywork_reward"),
    ):
        chosen = judges_of(of, BenchmarkConfig("b", task, judges=(name,)))
        kind = get_task(task)
        found_headline = headline_of(BenchmarkConfig("b", task), chosen, kind.headline, kind.judged_by_model)
        assert found_headline[0] == headline
