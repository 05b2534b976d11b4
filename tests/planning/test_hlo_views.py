"""What a fusion of optimized HLO reads through a view, and what a kernel's operands are."""

from jax_sft.planning.hlo.cost import cost_of
from jax_sft.planning.hlo.parse import parse

VIEW = """HloModule view

%seen_so (a: bf16[1,64,32]) -> bf16[64,32] {
  %a = bf16[1,64,32]{2,1,0} parameter(0)
  ROOT %as = bf16[64,32]{1,0} bitcast(%a)
}

%times (x.1: bf16[8,64], a.1: bf16[1,64,32]) -> bf16[8,32] {
  %x.1 = bf16[8,64]{1,0} parameter(0)
  %a.1 = bf16[1,64,32]{2,1,0} parameter(1)
  %matrix = bf16[64,32]{1,0} fusion(%a.1), kind=kLoop, calls=%seen_so
  ROOT %product = bf16[8,32]{1,0} convolution(%x.1, %matrix), dim_labels=bf_io->bf
}

ENTRY %main (x: bf16[8,64], a.2: bf16[1,64,32], pool: bf16[99,16,4,128]) -> bf16[8,32] {
  %x = bf16[8,64]{1,0} parameter(0)
  %a.2 = bf16[1,64,32]{2,1,0} parameter(1)
  %pool = bf16[99,16,4,128]{3,2,1,0} parameter(2)
  %write_pages.3 = bf16[99,16,4,128]{3,2,1,0} custom-call(%pool), custom_call_target="tpu_custom_call"
  ROOT %y = bf16[8,32]{1,0} fusion(%x, %a.2), kind=kOutput, calls=%times
}
"""


def test_a_matrix_seen_through_a_view_within_a_fusion_is_read_and_pages_are_data() -> None:
    cost = cost_of(parse(VIEW))
    assert cost.hbm_bytes == 2 * (8 * 64 + 64 * 32 + 8 * 32)
    assert cost.kernels == {"write_pages": 1}
