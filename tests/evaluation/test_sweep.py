"""The sweep, end to end on two tiny runs: what it writes, what it does not do again, what it refuses."""

import io
import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from jax_sft.checkpoints.schedules import snapshot_steps
from jax_sft.checkpoints.store import load_snapshot, snapshot_store
from jax_sft.config import (
    BenchmarkConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    ParallelismConfig,
    Run,
    SnapshotConfig,
    Study,
    TokensConfig,
    replace,
)
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.evaluation import completions
from jax_sft.evaluation.benchmarks.base import load_items
from jax_sft.evaluation.results import score
from jax_sft.evaluation.sweep import Sweep, snapshots_to_sweep, sweep, trained_run
from jax_sft.files import read_json, write_json
from jax_sft.generation.engine import Engine, Request
from jax_sft.models.decoder import Params
from jax_sft.sharding import make_mesh
from jax_sft.tokens.rendering import render_prompt, stop_ids
from jax_sft.tokens.templates import load_template
from jax_sft.tokens.tokenizer import load_tokenizer
from jax_sft.training.loop import prepare
from jax_sft.training.start import write_identity

REPOSITORY = Path(__file__).resolve().parent.parent.parent
MODEL = ModelConfig(
    vocab_size=load_tokenizer(TokensConfig()).vocab_size,
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_size=64,
)
FIRST = Run(
    name="first",
    model=MODEL,
    compute_dtype="float32",
    data=DataConfig(source="miniature_base", rows=16, batch_size=8, row_length=64, rows_per_micro_batch=8),
    snapshots=SnapshotConfig(schedule="0, last"),
)
SECOND = replace(FIRST, name="second", snapshots=SnapshotConfig(schedule="last"))
BENCHMARKS = (
    BenchmarkConfig("reasoning", "miniature", "reasoning", limit=11, max_new_tokens=12),
    BenchmarkConfig("refusals", "miniature_safety", "safety", limit=6, max_new_tokens=9),
    BenchmarkConfig(
        "countdown",
        "countdown",
        "in_domain",
        limit=5,
        samples=3,
        max_new_tokens=16,
        temperature=1.0,
        top_p=0.95,
        options={"miniature": True},
    ),
)
EVALUATION = EvaluationConfig(
    slots=8, context=128, chunk=4, prefill_rows=8, compute_dtype="float32", workers=1
)
UNITS = [
    (run, step, benchmark.name)
    for run, steps in (("first", (0, 2)), ("second", (2,)))
    for step in steps
    for benchmark in BENCHMARKS
]
COMPLETIONS = 3 * (11 + 6 + 5 * 3)


def study(root: Path | str, **changes: Any) -> Study:
    """Two runs with three snapshots in all, and three benchmarks."""
    made = Study("tiny", (FIRST, SECOND), BENCHMARKS, EVALUATION, root=str(root))
    return replace(made, **changes)


def unit(root: Path, run: str, step: int, benchmark: str) -> Path:
    return root / "tiny" / run / "evals" / str(step) / benchmark


def completion_files(root: Path) -> dict[Path, bytes]:
    """Content of every completions.jsonl below `root`."""
    files = sorted(root.glob("tiny/*/evals/*/*/completions.jsonl"))
    return {file.relative_to(root): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with two runs as training leaves them, their weights random, and nothing swept."""
    root = tmp_path_factory.mktemp("trained")
    wanted = Engine(MODEL, EVALUATION, (), make_mesh(ParallelismConfig())).abstract_params()
    for seed, run in enumerate((FIRST, SECOND)):
        template, plan = prepare(study(root), run)
        steps = snapshot_steps(run.snapshots.schedule, plan.total_steps, plan.steps_per_epoch)
        with snapshot_store(write_identity(study(root), run, plan, template, steps)) as store:
            for step in steps:
                store.save(step, random_params(wanted, 10 * seed + step))
    return root


def random_params(wanted: Params, seed: int) -> Params:
    """Weights that end some completions before their limit."""
    rng = np.random.default_rng(seed)

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jax.device_put(rng.normal(0, 0.5, leaf.shape).astype(jnp.bfloat16), leaf.sharding)

    return jax.tree.map(draw, wanted)


@pytest.fixture(scope="module")
def sweeper_and_root(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Path]:
    """The whole study swept and scored without interruption, and what did it."""
    root = tmp_path_factory.mktemp("swept") / "root"
    shutil.copytree(trained, root)
    whole = study(root)
    sweeper = Sweep(whole, BENCHMARKS, Console(file=io.StringIO()))
    for run in whole.runs:
        sweeper.generate(sweeper.plan(run, snapshots_to_sweep(whole, run, None)))
    score(whole)
    return sweeper, root


@pytest.fixture
def swept(sweeper_and_root: tuple[Sweep, Path], tmp_path: Path) -> Path:
    """A copy of the swept study, times of the files included."""
    shutil.copytree(sweeper_and_root[1], tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def fresh(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained study, nothing swept."""
    shutil.copytree(trained, tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def no_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked of an engine fails the test."""

    def refuse(*_: Any) -> Iterator[Any]:
        raise AssertionError("nothing should be generated")

    monkeypatch.setattr(Engine, "generate", refuse)


def test_every_unit_has_its_completions_and_scores(sweeper_and_root: tuple[Sweep, Path]) -> None:
    root = sweeper_and_root[1]
    assert len(completion_files(root)) == len(UNITS)
    by_name = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    for run, step, name in UNITS:
        folder, benchmark = unit(root, run, step, name), by_name[name]
        rows = [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]
        items = [item.id for item in load_items(benchmark, "")]
        assert [(row["item"], row["sample"]) for row in rows] == [
            (item, sample) for item in items for sample in range(benchmark.samples)
        ]
        for row in rows:
            assert list(row) == ["item", "sample", "completion", "tokens", "finish"]
            assert row["finish"] == "stop" or row["tokens"] == benchmark.max_new_tokens
            assert 1 <= row["tokens"] <= benchmark.max_new_tokens
        scores = json.loads((folder / "scores.json").read_text())
        assert (scores["run"], scores["step"], scores["benchmark"]) == (run, step, name)
        assert scores["completions"] == len(rows)
        assert sorted(path.name for path in folder.iterdir()) == [
            "completions.jsonl",
            "sampling.json",
            "scores.json",
        ]
        stored = root / "tiny" / "benchmarks" / f"{name}.jsonl"
        assert [json.loads(line)["id"] for line in stored.read_text().splitlines()] == items


def test_completions_are_those_of_an_engine_on_one_device(sweeper_and_root: tuple[Sweep, Path]) -> None:
    """The sweep ran over all devices, all benchmarks in one stream; here one benchmark is asked alone."""
    root = sweeper_and_root[1]
    tokenizer = load_tokenizer(FIRST.tokens)
    template = load_template(FIRST.tokens, tokenizer)
    mesh = make_mesh(ParallelismConfig(), jax.devices()[:1])
    alone = Engine(MODEL, replace(study(root).evaluation, slots=5), stop_ids(tokenizer, template), mesh)
    params = load_snapshot(root / "tiny" / "first", 2, alone.abstract_params())
    for benchmark in BENCHMARKS[1:]:
        requests = [
            Request(
                f"{benchmark.name}/{item.id}",
                sample,
                tuple(render_prompt(tokenizer, template, item.messages).tolist()),
                benchmark.max_new_tokens,
                benchmark.temperature,
                benchmark.top_p,
            )
            for item in load_items(benchmark, "")
            for sample in range(benchmark.samples)
        ]
        made = {(one.item, one.sample): one for one in alone.generate(params, requests)}
        path = unit(root, "first", 2, benchmark.name) / "completions.jsonl"
        for line in path.read_text().splitlines():
            row = json.loads(line)
            one = made.pop((f"{benchmark.name}/{row['item']}", row["sample"]))
            assert row["completion"] == tokenizer.decode(list(one.tokens))
            assert (row["tokens"], row["finish"]) == (one.generated, one.finish)
        assert not made


def test_one_compilation_of_decode_for_the_whole_sweep(sweeper_and_root: tuple[Sweep, Path]) -> None:
    """Two runs, three snapshots, greedy and sampled benchmarks of different lengths."""
    [engine] = sweeper_and_root[0].engines.values()
    assert engine.decode_compilations == 1
    assert engine._decode._cache_size() == 1  # type: ignore[attr-defined]


def test_snapshots_and_samples_differ(sweeper_and_root: tuple[Sweep, Path]) -> None:
    files = completion_files(sweeper_and_root[1])
    assert len(set(files.values())) == len(UNITS)
    rows = files[Path("tiny/first/evals/2/countdown/completions.jsonl")].decode().splitlines()
    assert len({json.loads(row)["completion"] for row in rows}) == len(rows)


@pytest.mark.usefixtures("no_generation")
def test_what_is_finished_is_not_done_again(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a snapshot is read."""
    monkeypatch.setattr("jax_sft.checkpoints.store.Store.fault", lambda *_: pytest.fail("snapshot read"))
    files = sorted(swept.glob("tiny/*/evals/*/*/completions.jsonl"))
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}
    sweep(study(swept), ["first", "second"])
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files} == before


def test_only_what_is_missing_is_done(swept: Path) -> None:
    """A unit without its file, and one to which samples are added, are completed; others are left alone."""
    before = completion_files(swept)
    lost = unit(swept, "first", 2, "refusals") / "completions.jsonl"
    lost.unlink()
    times = {file: (swept / file).stat().st_mtime_ns for file in before if swept / file != lost}
    sweep(study(swept), ["first"], [2])
    assert completion_files(swept) == before
    assert times == {file: (swept / file).stat().st_mtime_ns for file in times}
    more = replace(BENCHMARKS[2], samples=4)
    sweep(study(swept, benchmarks=(more,)), ["first"], [2], ["countdown", "countdown"])
    grown = Path("tiny/first/evals/2/countdown/completions.jsonl")
    rows = (swept / grown).read_bytes().splitlines(keepends=True)
    assert len(rows) == 4 * 5
    assert b"".join(row for number, row in enumerate(rows) if number % 4 < 3) == before[grown]


KILLED = """
import os, signal, sys, threading, time
from jax_sft.evaluation import completions
from jax_sft.evaluation.sweep import sweep
from tests.evaluation.test_sweep import study

root, after, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
completions.FLUSH_COUNT = 2
add, seen = completions.CompletionsFile.add, []

def watched(self, row):
    add(self, row)
    seen.append(row)
    if len(seen) == after:
        threading.Timer(pause, os.kill, (os.getpid(), signal.SIGKILL)).start()
    time.sleep(0.003)

completions.CompletionsFile.add = watched
sweep(study(root), ["first", "second"])
"""


def test_a_sweep_killed_at_random_moments_loses_and_doubles_nothing(
    sweeper_and_root: tuple[Sweep, Path], fresh: Path
) -> None:
    """Killed twice, some milliseconds after a random number of completions."""
    rng = random.Random(0)
    done = 0
    for _ in range(2):
        after = rng.randrange(5, 35)
        command = [sys.executable, "-c", KILLED, str(fresh), str(after), str(rng.uniform(0, 0.03))]
        process = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert process.returncode == -signal.SIGKILL, process.stderr
        found = kept(fresh)
        assert len(set(found)) == len(found), "a completion is there twice"
        # At most one completion of each unit under way had not been written.
        assert len(found) >= done + after - len(BENCHMARKS)
        done = len(found)
    assert done < COMPLETIONS, "killed too late to show anything"
    sweep(study(fresh), ["first", "second"])
    assert completion_files(fresh) == completion_files(sweeper_and_root[1])
    assert not list(fresh.glob("**/parts"))


def kept(root: Path) -> list[tuple[str, str, int]]:
    """Unit, item and sample of every completion on disk, in parts or in final files."""
    folders = [unit(root, *one) for one in UNITS]
    return [
        (folder.as_posix(), row["item"], row["sample"])
        for folder in folders
        for file in ([*folder.glob("completions.jsonl")] or sorted(folder.glob("parts/*.jsonl")))
        for row in map(json.loads, file.read_text().splitlines())
    ]


def test_torn_and_unknown_parts_are_drawn_again(sweeper_and_root: tuple[Sweep, Path], fresh: Path) -> None:
    whole = sweeper_and_root[1]
    lines = (unit(whole, "first", 0, "reasoning") / "completions.jsonl").read_text().splitlines(keepends=True)
    parts = unit(fresh, "first", 0, "reasoning") / "parts"
    parts.mkdir(parents=True)
    (parts / "00000.jsonl").write_text("".join(lines[:4]) + lines[4][:20])
    (parts / "00001.jsonl").write_text('{"item": "nobody", "sample": 0}\n')
    (parts / "what is this").write_bytes(b"\x00\xff")
    sweep(study(fresh), ["first"], [0], ["reasoning"])
    got, want = (unit(root, "first", 0, "reasoning") for root in (fresh, whole))
    assert (got / "completions.jsonl").read_bytes() == (want / "completions.jsonl").read_bytes()
    assert not parts.exists()


def damage(root: Path, run: str, step: int) -> None:
    """Change one byte in the largest file of a snapshot."""
    folder = root / "tiny" / run / "snapshots" / str(step)
    largest = max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)


def test_a_damaged_snapshot_is_named_and_passed_over(
    sweeper_and_root: tuple[Sweep, Path], fresh: Path
) -> None:
    damage(fresh, "first", 0)
    said = io.StringIO()
    sweep(study(fresh), ["first"], None, ["refusals"], Console(file=said, width=400))
    assert "snapshots/0: " in said.getvalue()
    assert "passed over" in said.getvalue()
    made = completion_files(fresh)
    assert list(made) == [Path("tiny/first/evals/2/refusals/completions.jsonl")]
    assert made.items() <= completion_files(sweeper_and_root[1]).items()


@pytest.mark.usefixtures("no_generation")
def test_without_a_sound_snapshot_the_sweep_fails(fresh: Path) -> None:
    damage(fresh, "second", 2)
    with pytest.raises(JaxSftError, match="second/snapshots: no snapshot could be used"):
        sweep(study(fresh), ["second"])


BAD_INPUT: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("benchmark", {}, {"benchmarks": ["reasoning", "chess"]}, "no benchmark 'chess'; it has reasoning, ref"),
    ("run", {}, {"runs": ["first", "third"]}, "no run 'third'; it has first, second"),
    ("step", {}, {"steps": [0, 7]}, "run first: has no snapshot at step 7; there are 0, 2"),
    (
        "prompt too long",
        {
            "evaluation": EvaluationConfig(
                slots=8, context=20, chunk=4, prefill_rows=8, compute_dtype="float32"
            )
        },
        {},
        r"benchmark \w+: item '.*' has a prompt of \d+ tokens, which with max_new_tokens \d+ does not fit "
        r"evaluation.context 20; raise it to \d+ or lower max_new_tokens",
    ),
    (
        "benchmark file",
        {"benchmarks": (BenchmarkConfig("gsm8k", "gsm8k", "reasoning", path="nowhere.jsonl"),)},
        {},
        r"benchmark gsm8k: no file nowhere.jsonl .*; copy grade_school_math",
    ),
    (
        "devices",
        {"evaluation": EvaluationConfig(tensor=3)},
        {},
        "parallelism: .*tensor=3 makes 6 devices, but there are 8",
    ),
]


@pytest.mark.usefixtures("no_generation")
@pytest.mark.parametrize(
    ("changes", "asked", "message"), [pytest.param(*case[1:], id=case[0]) for case in BAD_INPUT]
)
def test_bad_input_is_one_clear_line_before_anything_is_generated(
    trained: Path, changes: dict[str, Any], asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        sweep(study(trained, **changes), **({"runs": ["first"]} | asked))
    assert "\n" not in str(caught.value)
    assert not list(trained.glob("tiny/*/evals")), "nothing is left behind, so that the remedy is free"


@pytest.mark.usefixtures("no_generation")
def test_a_template_that_changed_since_training_is_refused(tmp_path: Path, trained: Path) -> None:
    shutil.copytree(trained, tmp_path / "copy")
    path = tmp_path / "copy" / "tiny" / "first" / "run.json"
    write_json(path, read_json(path) | {"template_hash": "another"})
    with pytest.raises(UsageError, match=r"not the one that it was trained with, by .*run.json"):
        sweep(study(tmp_path / "copy"), ["first"])


@pytest.mark.usefixtures("no_generation")
def test_a_sweep_reads_the_run_as_it_was_trained_not_as_the_study_says_now(trained: Path) -> None:
    changed = study(trained, runs=(replace(FIRST, compute_dtype="bfloat16", epochs=7.0),))
    assert trained_run(changed, "first") == FIRST


@pytest.mark.usefixtures("no_generation")
def test_a_run_that_is_not_trained_is_refused(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(JaxSftError, match=r"run.json: no such file; train run first first"):
        sweep(study(tmp_path), ["first"])
    shutil.copytree(trained, tmp_path / "copy")
    (tmp_path / "copy" / "tiny" / "first" / "run.json").unlink()
    with pytest.raises(JaxSftError, match=r"run.json: no such file; train run first first"):
        sweep(study(tmp_path / "copy"), ["first"])


@pytest.mark.usefixtures("no_generation")
def test_other_settings_under_the_same_name_are_refused(swept: Path) -> None:
    hotter: Sequence[BenchmarkConfig] = (replace(BENCHMARKS[2], temperature=0.5),)
    with pytest.raises(UsageError, match=r"countdown: was drawn with temperature 1.0, now it is 0.5"):
        sweep(study(swept, benchmarks=tuple(hotter)), ["first"])


def test_an_interrupted_sweep_keeps_what_it_drew(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C, or any error, writes what waits before it goes on its way."""
    add, seen = completions.CompletionsFile.add, []

    def interrupted(self: completions.CompletionsFile, row: dict[str, Any]) -> None:
        add(self, row)
        seen.append(row)
        if len(seen) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(completions.CompletionsFile, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep(study(fresh), ["second"])
    assert len(kept(fresh)) == 5
