"""A sweep works with another backend as with our own engine, and lets nothing move unasked."""

import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from jax_sft.evaluation.snapshots import snapshots_to_sweep
from jax_sft.evaluation.sweep import Sweep
from jax_sft.generation.backend import Completion, MakeBackend, Request
from tests.evaluation.tiny import BENCHMARKS, COMPLETIONS, completion_files, study
from tests.generation.echo import Echo


def swept_by(make_backend: MakeBackend, root: Path) -> Sweep:
    whole = study(root)
    sweeper = Sweep(whole, BENCHMARKS, Console(file=io.StringIO()), make_backend)
    for run in whole.runs:
        sweeper.generate(sweeper.todo(run, snapshots_to_sweep(whole, run, None)))
    return sweeper


def test_another_backend_answers(fresh: Path) -> None:
    sweeper = swept_by(Echo, fresh)
    assert not sweeper.problems
    assert {type(backend) for backend in sweeper.engines.values()} == {Echo}
    files = completion_files(fresh)
    lines = [json.loads(line) for text in files.values() for line in text.decode().splitlines()]
    assert len(lines) == COMPLETIONS
    assert all(line["finish"] == "stop" and line["completion"] for line in lines)
    assert len(set(files.values())) == len(files), "every snapshot answers with its own weights"


class Silent(Echo):
    """Moves something between host and device without saying so."""

    def generate(self, requests: Iterable[Request], seed: int = 0) -> Iterator[tuple[Request, Completion]]:
        for answer in super().generate(requests, seed):
            jnp.zeros(3) + np.ones(3, np.float32)
            yield answer


def test_a_silent_transfer_ends_a_sweep(fresh: Path) -> None:
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        swept_by(Silent, fresh)


class Asked(Echo):
    """Notes how long it was told that each request will take."""

    expected: ClassVar[list[list[tuple[str, int]]]] = []

    def generate(self, requests: Iterable[Request], seed: int = 0) -> Iterator[tuple[Request, Completion]]:
        asked = list(requests)
        self.expected.append([(request.id, request.expected_tokens) for request in asked])
        return super().generate(asked, seed)


def test_lengths_at_one_snapshot_are_expected_at_the_next(fresh: Path) -> None:
    Asked.expected.clear()
    swept_by(Asked, fresh)
    first, second = Asked.expected[:2]
    assert {count for _, count in first} == {0}
    assert all(count > 0 for _, count in second)
