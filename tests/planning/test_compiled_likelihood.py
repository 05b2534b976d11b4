"""Likelihoods with branches as the TPU's own compiler makes them."""

from typing import Any

import pytest

from jax_sft.config import EvaluationConfig
from jax_sft.generation.likelihood import Likelihoods
from jax_sft.planning.topologies import parse_topology
from jax_sft.sharding import make_generation_mesh
from tests.planning.compiler import compile_lowered
from tests.planning.test_compiled_text import INSTRUCTION, LENGTH, RUN, VOCAB, shapes

V5E = parse_topology("v5e:4")


@pytest.mark.slow
def test_branches_go_through_the_kernel_and_no_logits_are_whole(libtpu: Any) -> None:
    """Two parts of the softmax in each layer; a device's two rows never have all logits, nor all pairs."""
    mesh = make_generation_mesh(2, libtpu(V5E))
    lowered = Likelihoods(RUN.model, EvaluationConfig(), mesh).lower(4, LENGTH, branched=True)
    text = str(compile_lowered(lowered).as_text())
    found = [match for line in text.splitlines() if (match := INSTRUCTION.match(line))]
    assert sum(match[2] == "custom-call" and "splash" in match.string for match in found) == 2
    sizes = [shape for match in found for shape in shapes(match[1])]
    assert not [shape for shape in sizes if shape.count(LENGTH) > 1]
    assert not [shape for shape in sizes if LENGTH in shape and (VOCAB in shape or VOCAB // 2 in shape)]
