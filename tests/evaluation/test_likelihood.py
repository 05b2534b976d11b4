"""Benchmarks asked by likelihood: swept, resumed, scored and reported like the others; rows as trained."""

import io
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

from jax_sft.analysis.pairs import unit_change
from jax_sft.analysis.study import load_study
from jax_sft.checkpoints.store import load_snapshot
from jax_sft.config import BenchmarkConfig, Sampling, Study, replace
from jax_sft.data.batches import Batches
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.evaluation import completions
from jax_sft.evaluation.score import score
from jax_sft.evaluation.sweep import Sweep, sweep
from jax_sft.generation.likelihood import Likelihoods
from jax_sft.models import Params
from jax_sft.models.decoder import forward_rows, logits
from jax_sft.models.params import abstract_params
from jax_sft.packed import Rows
from jax_sft.sharding import make_mesh
from jax_sft.study.records import UnitScores
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.rendering import render_row
from jax_sft.tokens.templates import load_template
from jax_sft.training.loop import prepare
from jax_sft.training.placement import place_batch
from jax_sft.training.step import loss_and_gradients
from tests.evaluation.tiny import BENCHMARKS, EVALUATION, FIRST, MODEL, damage, study, unit

QUESTIONS = [
    {
        "id": str(number),
        "question": {
            "stem": f"What is {number} + 1?",
            "choices": [
                {"label": letter, "text": str(value)} for letter, value in zip("ABC", values, strict=True)
            ],
        },
        "answerKey": "ABC"[values.index(number + 1)],
    }
    for number, values in enumerate([(1, 5, 12), (0, 2, 3), (7, 8, 3), (4, 44, 444), (1, 2, 5)])
]
LIKELY = BenchmarkConfig("letters", "commonsenseqa_likelihood", path="questions.jsonl")
TEXTS = replace(LIKELY, name="texts", options={"choices": "text", "plain": True})
ROWS = BenchmarkConfig("loss", "rows", path="miniature_base", options={"rows": 16})
DRIFT = replace(ROWS, name="drift", task="drift")
ASKED = (LIKELY, TEXTS, ROWS, DRIFT)


def asking(root: Path, *benchmarks: BenchmarkConfig) -> Study:
    """The tiny study with these benchmarks in place of its own."""
    lines = []
    for row in QUESTIONS:
        choices = row["question"]["choices"]
        flat = {"label": [c["label"] for c in choices], "text": [c["text"] for c in choices]}
        lines.append(row | {"question": row["question"]["stem"], "choices": flat})
    (root / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    evaluation = replace(EVALUATION, score_tokens=128)
    return study(root, benchmarks=benchmarks or ASKED, data_root=str(root), evaluation=evaluation)


@pytest.fixture(scope="module")
def likely(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root whose study was swept over the benchmarks of this file."""
    root = tmp_path_factory.mktemp("likely") / "root"
    shutil.copytree(trained, root)
    sweep(asking(root), ["first"])
    return root


def lines_of(root: Path, step: int, benchmark: str) -> list[dict[str, Any]]:
    path = unit(root, "first", step, benchmark) / "completions.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def scores_of(root: Path, step: int, benchmark: str) -> UnitScores:
    scores = UnitScores.read(unit(root, "first", step, benchmark))
    assert scores is not None
    return scores


def test_letters_are_weighed_as_a_whole_forward_pass_weighs_them(likely: Path) -> None:
    """Each option of each item read alone, in the run's template; what closes the turn is not counted."""
    tokenizer = load_tokenizer(FIRST.tokens)
    template = load_template(FIRST.tokens, tokenizer)
    items = [json.loads(x) for x in (likely / "tiny/benchmarks/letters.jsonl").read_text().splitlines()]
    whole = jax.jit(
        lambda params, rows: jax.nn.log_softmax(logits(params, MODEL, forward_rows(params, MODEL, rows))[0])
    )
    for step in (0, 2):
        params = load_snapshot(likely / "tiny" / "first", step, abstract_params(MODEL))
        for item, line in zip(items, lines_of(likely, step, "letters"), strict=True):
            found = []
            for letter in item["reference"]["choices"]:
                row = render_row(tokenizer, template, FIRST.tokens.end, item["messages"], letter)
                ids_1T = np.zeros((1, 96), np.int32)
                ids_1T[0, : len(row.ids) - 1] = row.ids[:-1]
                where_1T = np.arange(96)[None]
                rows = Rows.to_read(ids_1T, where_1T, (where_1T < len(row.ids) - 1).astype(np.int32))
                all_TV = whole(params, rows)
                [place] = np.flatnonzero(row.is_target[:-1])
                found.append(float(all_TV[place - 1, row.ids[place]]))
            stored = [one["logprob"] for one in line["likelihoods"]]
            np.testing.assert_allclose(stored, found, atol=1e-5)
            assert line["completion"] == "ABC"[int(np.argmax(found))]


def test_choices_are_scored_by_their_likelihoods(likely: Path) -> None:
    for name in ("letters", "texts"):
        scores, lines = scores_of(likely, 2, name), lines_of(likely, 2, name)
        right = ["ABC".index(str(row["answerKey"])) for row in QUESTIONS]
        logprobs = np.array([[one["logprob"] for one in line["likelihoods"]] for line in lines])
        shares = np.exp(logprobs) / np.exp(logprobs).sum(axis=1, keepdims=True)
        assert scores.score == pytest.approx(np.mean(logprobs.argmax(1) == right))
        mean = shares[np.arange(5), right].mean()
        assert scores.metrics["right_probability"].mean == pytest.approx(mean)
        lengths = np.array([[len(c["text"]) for c in row["question"]["choices"]] for row in QUESTIONS])
        per_byte = logprobs / (1 if name == "letters" else lengths)
        share = np.mean(per_byte.argmax(1) == right)
        assert scores.metrics["accuracy_per_byte"].mean == pytest.approx(share)
        assert (scores.items, scores.completions, scores.headline) == (5, 5, "accuracy")


@pytest.mark.parametrize("step", [0, 2])
def test_the_loss_of_rows_is_that_of_a_training_step_on_them(likely: Path, step: int) -> None:
    """All rows of the run in one batch; the step's loss metric, from the weights of the snapshot."""
    data = replace(FIRST.data, batch_size=FIRST.data.rows)
    run = replace(FIRST, data=data)
    batches = Batches(prepare(study(likely), run).batches.rows, data, run.seed, 1.0)
    mesh = make_mesh(run.parallelism)
    params = load_snapshot(likely / "tiny" / "first", step, abstract_params(MODEL, mesh=mesh))
    with jax.set_mesh(mesh):
        batch = place_batch(batches.batch(1), mesh)
        loss, _ = jax.jit(lambda params, batch: loss_and_gradients(params, run, batch))(params, batch)
    scores = scores_of(likely, step, "loss")
    assert scores.score == pytest.approx(float(loss), abs=1e-5)
    assert scores.metrics["perplexity"].mean == pytest.approx(math.exp(float(loss)), rel=1e-4)
    assert (scores.headline, scores.higher_is_better, scores.items) == ("nll", False, 16)
    rows = [line["likelihoods"][0] for line in lines_of(likely, step, "loss")]
    by_row = [-row["logprob"] / row["tokens"] for row in rows]
    assert scores.metrics["nll_of_row"].mean == pytest.approx(np.mean(by_row))
    assert sum(row["tokens"] for row in rows) == batches.rows.targets_E.sum()


def test_changes_of_the_loss_weigh_tokens_as_the_loss_does(likely: Path) -> None:
    before, after = (scores_of(likely, step, "loss") for step in (0, 2))
    change = unit_change(before, after, False)
    assert change.mean == pytest.approx(before.score - after.score)  # lower is better
    assert change.low < change.mean < change.high


def test_drift_is_the_divergence_from_the_base(likely: Path) -> None:
    """0 at the base, and elsewhere what two whole forward passes give."""
    start = scores_of(likely, 0, "drift")
    assert start.score == start.metrics["reverse_kl"].mean == 0
    batches = prepare(study(likely), FIRST).batches
    folder = likely / "tiny" / "first"
    base, later = (load_snapshot(folder, step, abstract_params(MODEL)) for step in (0, 2))

    @jax.jit
    def whole(params: Params, rows: Rows) -> jax.Array:
        return jax.nn.log_softmax(logits(params, MODEL, forward_rows(params, MODEL, rows)))

    forward, tokens = 0.0, 0.0
    for step in (1, 2):  # all rows of the run, as training packs them
        rows = batches.batch(step).rows
        flat = Rows(*(x.reshape(-1, x.shape[-1]) for x in rows))
        p, q = (np.asarray(whole(params, flat), np.float64) for params in (base, later))
        asked = flat.weights > 0
        forward += (np.exp(p) * (p - q)).sum(-1)[asked].sum()
        tokens += asked.sum()
    scores = scores_of(likely, 2, "drift")
    assert scores.score == pytest.approx(forward / tokens, rel=1e-4)
    assert scores.score > 0.01
    assert (scores.headline, scores.group, scores.mean_tokens) == ("kl", "general", tokens / 16)


def test_the_base_is_read_for_later_steps_alone(likely: Path, fresh: Path) -> None:
    asked = asking(fresh, DRIFT)
    sweep(asked, ["first"], [2])
    found, want = (scores_of(root, 2, "drift").score for root in (fresh, likely))
    assert found == pytest.approx(want, rel=1e-5)
    assert not unit(fresh, "first", 0, "drift").exists()


def test_without_its_base_a_snapshot_is_not_compared(fresh: Path) -> None:
    damage(fresh, "first", 0)
    with pytest.raises(JaxSftError, match="is compared with step 0, which could not be read"):
        sweep(asking(fresh, DRIFT, ROWS), ["first"], [2])
    assert not unit(fresh, "first", 2, "drift").exists()
    assert scores_of(fresh, 2, "loss").judged


def test_a_finished_unit_is_not_scored_again_and_a_damaged_one_is(
    likely: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in likely.glob("tiny/first/evals/*/*/completions.jsonl")}
    assert len(before) == 8
    path = unit(likely, "first", 2, "letters") / "completions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:1], lines[1].replace("-", "-1", 1), *lines[2:]]))
    asked = []
    score_all = Likelihoods.score

    def watched(self: Likelihoods, given: Any) -> Any:
        asked.extend(given := list(given))
        return score_all(self, given)

    monkeypatch.setattr(Likelihoods, "score", watched)
    sweep(asking(likely), ["first"])
    assert [one.id for one in asked] == ["letters/1/0"]
    assert {path: path.read_bytes() for path in before} == before


def test_an_interrupted_sweep_goes_on(likely: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add, seen = completions.CompletionsFile.add, []

    def interrupted(self: completions.CompletionsFile, line: Any) -> None:
        add(self, line)
        seen.append(line)
        if len(seen) == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(completions.CompletionsFile, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep(asking(fresh), ["first"], [0])
    assert len(list(fresh.glob("tiny/first/evals/0/*/*"))) >= 2
    monkeypatch.setattr(completions.CompletionsFile, "add", add)
    sweep(asking(fresh), ["first"], [0])
    for benchmark in ASKED:
        found, want = lines_of(fresh, 0, benchmark.name), lines_of(likely, 0, benchmark.name)
        assert [line["item"] for line in found] == [line["item"] for line in want]
        for a, b in zip(found, want, strict=True):
            values = [
                [one["logprob"] for one in line.get("likelihoods", ())] + line.get("divergence", [])
                for line in (a, b)
            ]
            np.testing.assert_allclose(*values, atol=1e-4)


def test_likelihoods_and_completions_share_a_sweep_and_a_report(fresh: Path) -> None:
    both = asking(fresh, BENCHMARKS[1], LIKELY, ROWS)
    sweeper = Sweep(both, both.benchmarks, Console(file=io.StringIO()))
    sweeper.generate(sweeper.todo(both.runs[0], [0, 2]))
    assert len(score(both)) == 6
    [(scorer, _)] = sweeper.scorers.values()
    assert isinstance(scorer, Likelihoods)
    assert scorer.compilations == 2, "rows with branches and rows without, for two snapshots"
    record = load_study(both)
    assert {name for _, name in record.runs[0].units} == {"refusals", "letters", "loss"}
    assert record.is_share("letters")
    assert not record.is_share("loss")


@pytest.mark.usefixtures("no_generation")
def test_what_cannot_be_asked_is_refused(fresh: Path) -> None:
    sampled = replace(LIKELY, samples=2, sampling=Sampling(1.0))
    with pytest.raises(UsageError, match="letters: samples 2, but likelihoods are not drawn"):
        sweep(asking(fresh, sampled), ["first"])
    server: Any = SimpleNamespace(name="elsewhere")
    with pytest.raises(
        UsageError, match=r"letters: its task .* is asked by likelihood, which a server cannot"
    ):
        Sweep(asking(fresh), [LIKELY], server=server)
    with pytest.raises(UsageError, match="choices 'word' is neither letter nor text"):
        sweep(asking(fresh, replace(LIKELY, options={"choices": "word"})), ["first"])
    with pytest.raises(UsageError, match="loss: path names no rows"):
        sweep(asking(fresh, replace(ROWS, path="")), ["first"])
    with pytest.raises(UsageError, match=r"nothing\.jsonl: no such file"):
        sweep(asking(fresh, replace(ROWS, path="nothing.jsonl", options={})), ["first"])


def test_other_settings_and_lost_likelihoods_are_named(likely: Path) -> None:
    """As for completions: one curve is of one kind, and nothing is averaged over."""
    asked = asking(likely)
    bfloat = replace(asked, evaluation=replace(asked.evaluation, compute_dtype="bfloat16"))
    with pytest.raises(UsageError, match=r"was drawn with compute_dtype float32, now it is bfloat16"):
        sweep(bfloat, ["first"])
    path = unit(likely, "first", 0, "loss") / "completions.jsonl"
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[1:]))
    with pytest.raises(JaxSftError, match=r"1 lines are missing"):
        score(asked)
    path.write_bytes(whole)
    score(asked)
