"""The skeleton of a new backend is one short file; tests/evaluation sweeps with it."""

from pathlib import Path

import jax
import pytest

from jax_sft.config import EvaluationConfig, ParallelismConfig
from jax_sft.errors import UsageError
from jax_sft.generation.backend import Backend, MakeBackend, Request
from jax_sft.sharding import make_mesh
from tests.generation import echo
from tests.generation.echo import Echo
from tests.generation.tiny import CONTEXT, MODEL, greedy_requests, placed

MOST_LINES = 60
MAKE: MakeBackend = Echo


def made() -> Backend:
    mesh = make_mesh(ParallelismConfig(), jax.devices()[:1])
    return MAKE(MODEL, EvaluationConfig(context=CONTEXT), (), mesh)


def test_it_is_one_file_of_at_most_sixty_lines() -> None:
    assert len(Path(echo.__file__).read_text().splitlines()) <= MOST_LINES


def test_it_answers_what_it_is_asked() -> None:
    backend = made()
    backend.load(placed(backend))
    answers = list(backend.generate(greedy_requests()))
    assert [request for request, _ in answers] == greedy_requests()
    with pytest.raises(UsageError, match=r"item long: .* do not fit"):
        backend.generate([Request("long", 0, tuple(range(60)), 15)])
