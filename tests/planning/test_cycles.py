"""Clock cycles of elementwise work and sorts."""

from dataclasses import replace

import pytest

from jax_sft.planning.hlo.cost import cost_of
from jax_sft.planning.hlo.cycles import VECTOR_LANES, estimated_cycles
from jax_sft.planning.hlo.parse import Array, Instruction, parse

SORT = Instruction(
    "sort.1", "sort", (Array("f32", (4, 8)),), ("x",), "%x", ", dimensions={1}, to_apply=%less"
)
TEXT = """HloModule elementwise

%double (a: f32[8,128]) -> f32[8,128] {
  %a = f32[8,128] parameter(0)
  ROOT %twice = f32[8,128] add(%a, %a)
}

%times (b: f32[8,8]) -> f32[8,8] {
  %b = f32[8,8] parameter(0)
  ROOT %product = f32[8,8] convolution(%b, %b), dim_labels=bf_oi->bf
}

ENTRY %main (x: f32[8,128], y: f32[8,8]) -> f32[8,8] {
  %x = f32[8,128] parameter(0)
  %y = f32[8,8] parameter(1)
  %doubled = f32[8,128] fusion(%x), kind=kLoop, calls=%double, backend_config={"estimated_cycles":"700"}
  %copied = f32[8,128] copy(%doubled), backend_config={"flag_configs":[],"estimated_cycles":"50"}
  ROOT %made = f32[8,8] fusion(%y), kind=kOutput, calls=%times, backend_config={"estimated_cycles":"9000"}
}
"""


def test_the_compilers_estimates_are_added_up_but_not_those_of_products() -> None:
    assert cost_of(parse(TEXT)).cycles == 750


def test_a_sort_takes_the_passes_of_a_bitonic_network() -> None:
    # 8 entries: 1 + 2 + 3 passes; find partner, order, … (4) and pick one value for each of 4 x 8 entries.
    assert estimated_cycles(SORT) == pytest.approx(6 * 4 * 8 * 5 / VECTOR_LANES)
    assert estimated_cycles(replace(SORT, arrays=(Array("f32", (4, 5)),))) == estimated_cycles(SORT)
    assert estimated_cycles(replace(SORT, arrays=(Array("f32", (4, 1)),))) == 0


def test_nothing_is_made_up_where_the_compiler_says_nothing() -> None:
    assert estimated_cycles(Instruction("a", "tuple", (), (), "", "")) == 0
