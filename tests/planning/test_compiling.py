"""Compiling for a TPU that is not there: the worker process, its cache, and one real program."""

import time
from pathlib import Path
from typing import Any

import pytest

from jax_sft.config import EvaluationConfig, replace
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.planning import compiling, worker
from jax_sft.planning.compiling import KNOWN, cache_folder, compile_facts
from jax_sft.planning.programs import Program, engine_program, train_program
from jax_sft.planning.topologies import parse_topology
from tests.planning.fakes import RUN

V5E = parse_topology("v5e:4")
TRAIN = train_program(RUN, V5E, 1024, 2)
"""So small a program is otherwise cut into loops of products and permutes."""


def instead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    """Run `code` in place of the worker."""
    script = tmp_path / "instead"
    script.write_text(f"#!/bin/sh\n{code}\n")
    script.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(script))
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda name: object())


def test_a_program_survives_json_and_forgets_what_does_not_matter() -> None:
    decode = engine_program("decode", RUN, V5E, EvaluationConfig(seed=3))
    for program in (TRAIN, decode):
        assert Program.from_json(program.to_json()) == program
    other = replace(RUN, name="other", seed=9, optimizer=replace(RUN.optimizer, learning_rate=0.5))
    assert train_program(other, V5E, 1024, 2) == TRAIN
    assert train_program(replace(RUN, remat="minimal"), V5E, 1024, 2) != TRAIN
    assert engine_program("decode", other, V5E, EvaluationConfig()) == decode


def test_a_compiler_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    instead(monkeypatch, tmp_path, "sleep 60")
    started = time.monotonic()
    with pytest.raises(JaxSftError, match=r"took more than 0\.3 seconds; raise --timeout"):
        compile_facts(TRAIN, tmp_path, timeout=0.3)
    assert time.monotonic() - started < 10


def test_a_compiler_that_crashes_is_told_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    instead(monkeypatch, tmp_path, "echo noise >&2; echo 'check failed: x' >&2; exit 6")
    with pytest.raises(JaxSftError, match="ended with code 6: check failed: x"):
        compile_facts(TRAIN, tmp_path)


def test_without_libtpu_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install"):
        compile_facts(TRAIN)


def test_the_cache_is_where_caches_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "jax_sft" / "plans"


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        ("… for HLO temporaries (17.62G) exceeds available HBM (15.75G). HLO …", 17.62),
        ("E1000: Ran out of memory in memory space hbm. Used 17.34G of 15.75G hbm. Exceeded …", 17.34),
    ],
)
def test_memory_that_is_missing_is_read_off_the_compilers_message(message: str, needed: float) -> None:
    assert worker.out_of_memory(message) == (needed * 2**30, 15.75 * 2**30)
    assert worker.out_of_memory("RESOURCE_EXHAUSTED: another thing") is None


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, libtpu: Any) -> tuple[Any, Path]:
    """The tiny train step, really compiled for four v5e chips."""
    cache = tmp_path_factory.mktemp("plans")
    return compile_facts(TRAIN, cache, timeout=600), cache


def test_the_real_step_is_compiled_for_a_tpu(compiled: tuple[Any, Path]) -> None:
    facts, _ = compiled
    assert facts.fits
    assert facts.memory["optimizer"] == pytest.approx(2 * facts.memory["parameters"], rel=1e-3)
    assert facts.memory["parameters"] + facts.memory["optimizer"] <= facts.memory["arguments"] < facts.peak
    total = facts.cost.total((1, 1))
    assert any("splash" in name for name in total.kernels)
    # Products of the layers: forward, again but for the last one, and twice in the backward pass; those of
    # the head for one chunk of a device's two rows.
    model, tokens = RUN.model, 2 * 1024
    heads, kv = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    mlp = model.hidden_size * model.mlp_size
    layer = model.hidden_size * (2 * heads + 2 * kv) + 3 * mlp
    head = model.hidden_size * model.vocab_size
    expected = 2 * tokens * (model.num_layers * (4 * layer - mlp) + 3 * head)
    assert total.flops == pytest.approx(expected, rel=0.02)
    # Every weight of the layers is gathered in bfloat16, forward and again backward; and no more than that.
    assert total.bytes_of("all-gather") == pytest.approx(2 * 2 * model.num_layers * layer + 2 * head, rel=0.1)


def test_the_same_program_is_not_compiled_twice(compiled: tuple[Any, Path]) -> None:
    facts, cache = compiled
    assert compile_facts(TRAIN, cache).cached  # this process knows it
    KNOWN.clear()  # and another finds it on disk
    again = compile_facts(TRAIN, cache)
    assert again.cached
    assert not facts.cached
    assert (again.memory, again.cost, again.seconds) == (facts.memory, facts.cost, facts.seconds)


@pytest.mark.usefixtures("libtpu")
def test_what_does_not_divide_is_told_as_in_training(tmp_path: Path) -> None:
    run = replace(RUN, data=replace(RUN.data, rows_per_micro_batch=6))
    with pytest.raises(UsageError, match=r"v5e:4: data.rows_per_micro_batch 6 does not divide by 4"):
        compile_facts(train_program(run, V5E, 1024, 2), tmp_path)
