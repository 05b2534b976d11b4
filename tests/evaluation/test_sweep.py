"""The sweep, end to end on two tiny runs: what it writes, and what it does not do again."""

import io
import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import pytest
from rich.console import Console

from jax_sft.checkpoints.store import load_snapshot
from jax_sft.config import BenchmarkConfig, ParallelismConfig, Sampling, replace
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.evaluation import completions
from jax_sft.evaluation.sweep import Sweep, sweep
from jax_sft.generation.backend import Request
from jax_sft.generation.engine import Engine
from jax_sft.sharding import make_mesh
from jax_sft.tasks.task import load_items
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.rendering import render_prompt, stop_ids
from jax_sft.tokens.templates import load_template
from tests.evaluation.tiny import (
    BENCHMARKS,
    COMPLETIONS,
    FIRST,
    MODEL,
    UNITS,
    completion_files,
    damage,
    kept,
    study,
    unit,
)

REPOSITORY = Path(__file__).resolve().parent.parent.parent


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
            "scores.json",
            "timing.json",
            "unit.json",
        ]
        assert scores["outputs"]["seconds"] > 0
        assert scores["outputs"]["total_tokens"] == sum(row["tokens"] for row in rows)
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
    alone.load(params)
    for benchmark in BENCHMARKS[1:]:
        requests = [
            Request(
                f"{benchmark.name}/{item.id}",
                sample,
                tuple(render_prompt(tokenizer, template, item.messages).tolist()),
                benchmark.max_new_tokens,
                benchmark.sampling,
            )
            for item in load_items(benchmark, "")
            for sample in range(benchmark.samples)
        ]
        made = {(request.id, request.sample): one for request, one in alone.generate(requests)}
        path = unit(root, "first", 2, benchmark.name) / "completions.jsonl"
        for line in path.read_text().splitlines():
            row = json.loads(line)
            one = made.pop((f"{benchmark.name}/{row['item']}", row["sample"]))
            assert row["completion"] == tokenizer.decode(list(one.tokens))
            assert (row["tokens"], row["finish"]) == (one.token_count, one.finish)
        assert not made


def test_one_compilation_of_each_program_for_the_whole_sweep(sweeper_and_root: tuple[Sweep, Path]) -> None:
    """Two runs, three snapshots, greedy and sampled benchmarks of different lengths."""
    [engine] = sweeper_and_root[0].engines.values()
    assert engine.decode_compilations == 1
    for program in ("_decode", "_prefill", "_copy"):
        assert getattr(engine, program)._cache_size() == 1


def test_snapshots_and_samples_differ(sweeper_and_root: tuple[Sweep, Path]) -> None:
    files = completion_files(sweeper_and_root[1])
    assert len(set(files.values())) == len(UNITS)
    rows = files[Path("tiny/first/evals/2/countdown/completions.jsonl")].decode().splitlines()
    assert len({json.loads(row)["completion"] for row in rows}) == len(rows)


@pytest.mark.usefixtures("no_generation")
def test_what_is_finished_is_not_done_again(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a snapshot read that is not small."""
    monkeypatch.setattr("jax_sft.evaluation.snapshots.READ_ANYWAY", 0)
    monkeypatch.setattr("jax_sft.checkpoints.store.Store.load", lambda *_: pytest.fail("snapshot read"))
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
from tests.evaluation.tiny import study

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


def test_a_damaged_snapshot_is_named_and_passed_over(
    sweeper_and_root: tuple[Sweep, Path], fresh: Path
) -> None:
    damage(fresh, "first", 0)
    said = io.StringIO()
    with pytest.raises(JaxSftError, match=r"not all could be had: .*snapshots/0: .*mend the cause"):
        sweep(study(fresh), ["first"], None, ["refusals"], console=Console(file=said, width=400))
    assert "snapshots/0: " in said.getvalue()
    assert "passed over" in said.getvalue()
    made = completion_files(fresh)
    assert list(made) == [Path("tiny/first/evals/2/refusals/completions.jsonl")]
    assert made.items() <= completion_files(sweeper_and_root[1]).items()


@pytest.mark.usefixtures("no_generation")
def test_other_settings_under_the_same_name_are_refused(swept: Path) -> None:
    hotter: Sequence[BenchmarkConfig] = (replace(BENCHMARKS[2], sampling=Sampling(0.5)),)
    with pytest.raises(UsageError, match=r"countdown: was drawn with temperature 1.0, now it is 0.5"):
        sweep(study(swept, benchmarks=tuple(hotter)), ["first"])


@pytest.mark.usefixtures("no_generation")
def test_one_curve_is_not_drawn_with_two_settings(swept: Path) -> None:
    """Nothing of the second run is there, but of the first."""
    shutil.rmtree(swept / "tiny" / "second" / "evals")
    hotter = (replace(BENCHMARKS[2], sampling=Sampling(0.5)),)
    with pytest.raises(UsageError, match=r"first/evals/0/countdown: was drawn with temperature 1.0, now"):
        sweep(study(swept, benchmarks=hotter), ["second"])


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
