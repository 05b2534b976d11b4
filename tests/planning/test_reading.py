"""What likelihoods and judges take: tokens that are read, against hand arithmetic; and who is not priced."""

from pathlib import Path

import pytest

from jax_sft.config import BenchmarkConfig, EvaluationConfig, JudgeConfig, Study, replace
from jax_sft.judges.pages import PAGES, get_page
from jax_sft.models.families import PRESETS
from jax_sft.models.size import model_size
from jax_sft.options import PlanOptions
from jax_sft.planning.expected import BenchmarkWork, SweepWorkload
from jax_sft.planning.plan import write_plan
from jax_sft.planning.reading import Reading, reading_work
from jax_sft.planning.topologies import parse_topology
from tests.planning.fakes import MODEL, RUN, FakeCompiler, study

pytestmark = pytest.mark.short

V5P = parse_topology("v5p:4")
EVALUATION = EvaluationConfig(slots=8, context=256, chunk=4, tensor=2, score_tokens=1000, prefill_rows=4)
HARM = BenchmarkConfig("harm", "harmbench", samples=2, max_new_tokens=3000, judges=("harmbench", "mine"))


def work_of(benchmark: BenchmarkConfig, new_tokens: float, given_tokens: float) -> SweepWorkload:
    work = BenchmarkWork(benchmark, 10, False, 50.0, new_tokens, new_tokens / 2, given_tokens, 0)
    return SweepWorkload(0, 0, 0.0, works=(work,))


def test_reading_is_products_beside_weights_for_every_call() -> None:
    read = Reading(None, texts=30, text_tokens=100.0, targets=60.0)
    size, chip = model_size(MODEL), V5P.chip
    flops = 2 * size.body * 3000 + 4 * 2 * 8 * 64 * 50 * 3000 + 2 * size.head * 60
    moved = 3 * 2 * (size.body + size.head)
    parts = flops / (4 * chip.peak_flops), moved / (4 * chip.hbm_bandwidth)
    assert read.seconds(MODEL, EVALUATION, V5P) == pytest.approx((max(parts), sum(parts)))


def test_words_of_a_judge_cost_its_weights_for_every_token() -> None:
    silent = Reading(MODEL, 40, 64.0, 0.0)
    size, chip = model_size(MODEL), V5P.chip
    high = replace(silent, new_tokens=5).seconds(MODEL, EVALUATION, V5P)[1]
    # 200 tokens: 8 slots of two shards, each of which reads the weights for 4 of them; and keys and values.
    step = 200 * (size.body + size.head) * 2 * 2 / 8 + 200 * 2 * 2 * 4 * 64 * 64 * 2
    # Prompts go in chunks of 256, two to a shard.
    prompts = 40 * 64 / 512 * (size.body + size.head) * 2
    memory = (step + prompts) / (4 * chip.hbm_bandwidth)
    assert high > memory
    flops = 40 * 64 * (2 * size.body + 4 * 2 * 8 * 64 * 32)
    flops += 200 * (2 * (size.body + size.head) + 2 * 4 * 2 * 8 * 64 * 32)
    assert high == pytest.approx(memory + flops / (4 * chip.peak_flops))


def test_a_judge_reads_its_prompt_the_request_and_what_fits_of_the_completion() -> None:
    judges = (JudgeConfig("mine", page="rubric_harm", endpoint="http://localhost/v1", model="large"),)
    of = replace(study("runs"), benchmarks=(HARM,), judges=judges)
    found = reading_work(of, work_of(HARM, 900.0, 0.0))
    assert found.unpriced == ("mine of harm",)
    ((name, read),) = found.of.items()
    page = get_page("harmbench")
    assert name == "harm by harmbench"
    assert read.model == PRESETS["llama2-13b"]
    assert read.texts == 20
    assert 50 + min(900, page.response_tokens or 900) < read.text_tokens < 50 + 900 + 600
    assert read.new_tokens == page.max_new_tokens
    endless = reading_work(of, work_of(HARM, 1e6, 0.0)).of[name]
    most = page.response_tokens or 1e6
    assert endless.text_tokens <= min(4096 - page.max_new_tokens, 50 + most + 600)
    guarded = replace(HARM, judges=("qwen3guard",))
    guard = get_page("qwen3guard")
    [whole] = reading_work(replace(of, benchmarks=(guarded,)), work_of(guarded, 1e6, 0.0)).of.values()
    assert whole.text_tokens == 4096 - guard.max_new_tokens, "a page that shortens nothing reads what fits"


def test_a_judge_whose_model_is_not_at_hand_is_not_priced() -> None:
    judges = (JudgeConfig("mine", page="rubric_harm", model="somebody/nowhere"),)
    benchmark = replace(HARM, judges=("mine",))
    of = replace(study("runs"), benchmarks=(benchmark,), judges=judges)
    assert reading_work(of, work_of(benchmark, 900.0, 0.0)).unpriced == ("mine of harm",)


def test_every_judge_with_weights_says_how_large_they_are() -> None:
    pages = [get_page(name) for name in PAGES]
    assert all(page.size in PRESETS for page in pages if page.weights)
    assert not any(page.size for page in pages if not page.weights)


def test_the_plan_of_a_study_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("costing", "sweeping"):
        monkeypatch.setattr(f"jax_sft.planning.{module}.compile_facts", FakeCompiler())
    given = BenchmarkConfig("letters", "gpqa_likelihood", limit=5)
    game = study(tmp_path).benchmarks[0]
    plain: Study = replace(study(tmp_path), evaluation=EVALUATION, benchmarks=(game,))
    options = PlanOptions(chips=("v5p:4",), row_tokens=512)
    write_plan(plain, [RUN], options)
    before = (tmp_path / "planned/plan/plan.json").read_text()
    judged = replace(plain, benchmarks=(replace(game, judges=("qwen3guard",)), given))
    write_plan(judged, [RUN], options)
    after = (tmp_path / "planned/plan/plan.json").read_text()
    assert "reading_seconds_of_a_snapshot" not in before
    assert '"game by qwen3guard"' in after
    assert '"letters"' in after
    told = capsys.readouterr().out.replace("\n", " ")
    assert "likelihoods and judges, by arithmetic: game by qwen3guard, letters" in told
    assert "seconds" in (tmp_path / "planned/plan/index.html").read_text()
