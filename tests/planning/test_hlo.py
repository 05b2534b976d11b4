"""Reading optimized HLO text: shapes, loops, groups of devices, and what a program costs."""

import jax
import jax.numpy as jnp
import pytest

from jax_sft.planning.hlo.cost import Cost, Traffic, cost_of
from jax_sft.planning.hlo.groups import replica_groups
from jax_sft.planning.hlo.parse import HOST, Array, Instruction, arrays, parse

LOOP = """HloModule loop

%condition (state: (s32[], f32[64,8,16])) -> pred[] {
  %state = (s32[]{:T(128)}, f32[64,8,16]{2,1,0:T(8,128)}) parameter(0)
  %limit = s32[] constant(12)
  %i = s32[] get-tuple-element(%state), index=0
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add.1 = f32[] add(%a, %b)
}

%slice_times (whole: f32[64,8,16], i.1: s32[]) -> f32[8,8] {
  %whole = f32[64,8,16]{2,1,0} parameter(0)
  %i.1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %part = f32[1,8,16]{2,1,0} dynamic-slice(%whole, %i.1, %zero, %zero), dynamic_slice_sizes={1,8,16}
  %part.1 = f32[8,16]{1,0} bitcast(%part)
  ROOT %product = f32[8,8]{1,0} convolution(%part.1, %part.1), dim_labels=bf_oi->bf
}

%body (state.1: (s32[], f32[64,8,16])) -> (s32[], f32[64,8,16]) {
  %state.1 = (s32[]{:T(128)}, f32[64,8,16]{2,1,0:T(8,128)}) parameter(0)
  %i.2 = s32[] get-tuple-element(%state.1), index=0
  %rows = f32[64,8,16]{2,1,0} get-tuple-element(%state.1), index=1
  %two = s32[] constant(2)
  %next = s32[] add(%i.2, %two)
  %made = f32[8,8]{1,0} fusion(%rows, %i.2), kind=kOutput, calls=%slice_times
  %reduced = f32[8,8]{1,0:T(8,128)S(1)} all-reduce(%made), replica_groups=[2,4]<=[8], to_apply=%sum
  ROOT %after = (s32[], f32[64,8,16]{2,1,0}) tuple(%next, %rows)
}

ENTRY %main (x: f32[64,8,16]) -> f32[64,8,16] {
  %x = f32[64,8,16]{2,1,0} parameter(0)
  %start = s32[] constant(0)
  %before = (s32[], f32[64,8,16]{2,1,0}) tuple(%start, %x)
  %loop = (s32[], f32[64,8,16]) while(%before), condition=%condition, body=%body, metadata={op_name="scan"}
  ROOT %out = f32[64,8,16]{2,1,0} get-tuple-element(%loop), index=1
}
"""


def test_shapes_know_their_bytes_and_where_they_live() -> None:
    found = arrays("(bf16[4,128]{1,0:T(8,128)(2,1)S(5)}, /*index=1*/s32[], pred[3]{0}, f8e4m3fn[7])")
    assert found == (
        Array("bf16", (4, 128), HOST),
        Array("s32", ()),
        Array("pred", (3,)),
        Array("f8e4m3fn", (7,)),
    )
    assert [array.bytes for array in found] == [1024, 4, 3, 7]


def test_a_loop_runs_as_often_as_its_counter_bound_and_step_say() -> None:
    cost = cost_of(parse(LOOP))
    (loop,) = cost.loops
    assert (loop.name, loop.trips) == ("scan", 6)
    assert loop.body.flops == 2 * 8 * 8 * 16
    # A slice is read, not the whole array; the product is written and read again, its sum stays on the chip.
    slices, counters = 4 * (8 * 16 + 2 * 8 * 8), 4 * 4
    assert loop.body.hbm_bytes == slices + counters
    assert loop.body.collectives == {Traffic("all-reduce", 4, False): (1.0, 256.0)}
    total = cost.total()
    assert total.flops == 6 * loop.body.flops
    assert total.bytes_of("all-reduce") == 6 * 256


def test_a_loop_whose_bound_is_data_takes_the_stated_count_of_its_depth() -> None:
    text = LOOP.replace("%limit = s32[] constant(12)", "%limit = s32[] get-tuple-element(%state), index=0")
    (loop,) = cost_of(parse(text)).loops
    assert loop.trips is None
    inner = Cost(flops=1.0, loops=[loop])
    assert inner.total((2.5,)).flops == 1 + 2.5 * loop.body.flops
    assert inner.total().flops == 1 + loop.body.flops


def test_costs_survive_json() -> None:
    cost = cost_of(parse(LOOP))
    assert Cost.from_json(cost.to_json()) == cost


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}", (4, False)),
        ("replica_groups={{0,4},{1,5},{2,6},{3,7}}", (2, True)),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", (2, True)),
        ("replica_groups=[2,4]<=[8]", (4, False)),
        ("replica_groups=mesh['replica'=2,'fsdp'=4] {'fsdp'}", (4, False)),
        ("replica_groups=mesh['replica'=2,'fsdp'=4] {'replica'}", (2, True)),
        ("source_target_pairs={{0,1},{1,2},{2,3},{3,0}}", (2, False)),
        ("source_target_pairs={{3,4}}", (2, True)),
    ],
)
def test_groups_are_read_in_every_notation(groups: str, expected: tuple[int, bool]) -> None:
    instruction = Instruction("a", "all-gather", (), (), "", f", channel_id=1, {groups}, dimensions={{0}}")
    assert replica_groups(instruction, devices_per_slice=4) == expected


def collectives(line: str, more: str = "") -> dict[Traffic, tuple[float, float]]:
    text = f"""HloModule one

{more}ENTRY %main (x: bf16[8,16]) -> bf16[8,16] {{
  %x = bf16[8,16]{{1,0}} parameter(0)
  {line}
  ROOT %out = bf16[8,16]{{1,0}} copy(%x)
}}
"""
    return cost_of(parse(text), 4, 2).collectives


def test_starts_hold_their_operands_too_and_are_counted_once() -> None:
    started = collectives(
        "%s = (bf16[8,16], bf16[32,16]) all-gather-start(%x), replica_groups={{0,1,2,3}}, dimensions={0}\n"
        "  %d = bf16[32,16]{1,0} all-gather-done(%s)"
    )
    assert started == {Traffic("all-gather", 4, False): (1.0, 32 * 16 * 2.0)}
    sent = collectives(
        "%s = (bf16[8,16], bf16[8,16]) collective-permute-start(%x), source_target_pairs={{0,1},{1,0}}\n"
        "  %d = bf16[8,16]{1,0} collective-permute-done(%s)"
    )
    assert sent == {Traffic("collective-permute", 2, False): (1.0, 256.0)}


def test_a_reduce_scatter_counts_the_array_it_reduces() -> None:
    line = "%s = bf16[2,16] reduce-scatter(%x), replica_groups={{0,1,2,3}}, dimensions={0}, to_apply=%sum"
    assert collectives(line) == {Traffic("reduce-scatter", 4, False): (1.0, 256.0)}


def test_an_all_reduce_of_which_slices_are_used_is_a_reduce_scatter() -> None:
    fused = """%scatter (p: bf16[8,16]) -> bf16[2,16] {
  %p = bf16[8,16]{1,0} parameter(0)
  %r = bf16[8,16]{1,0} all-reduce(%p), replica_groups={{0,1,2,3}}, to_apply=%sum
  %id = u32[] partition-id()
  ROOT %part = bf16[2,16]{1,0} dynamic-slice(%r, %id, %id), dynamic_slice_sizes={2,16}
}

"""
    found = collectives("%f = bf16[2,16]{1,0} fusion(%x), kind=kCustom, calls=%scatter", fused)
    assert found == {Traffic("reduce-scatter", 4, False): (1.0, 256.0)}


def test_a_collective_written_as_a_chain_of_fusions_counts_once() -> None:
    gather = "bf16[32,16]{1,0} all-gather(%p), channel_id=7, replica_groups={{0,1,2,3}}, dimensions={0}"
    chain = 'frontend_attributes={chain_id="3"}'
    pieces = "".join(
        f"""%piece.{n} (p: bf16[8,16]) -> bf16[32,16] {{
  %p = bf16[8,16]{{1,0}} parameter(0)
  ROOT %g = {gather}, {chain}
}}

"""
        for n in range(3)
    )
    lines = "\n  ".join(
        f"%f.{n} = bf16[32,16]{{1,0}} fusion(%x), kind=kCustom, calls=%piece.{n}" for n in range(3)
    )
    assert collectives(lines, pieces) == {Traffic("all-gather", 4, False): (1.0, 1024.0)}


def test_what_leaves_a_slice_is_a_message_to_the_host() -> None:
    found = collectives(
        "%t = token[] after-all()\n"
        "  %s = (bf16[8,16]{1,0}, u32[], token[]) send(%x, %t), channel_id=2, is_host_transfer=true, "
        'frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}'
    )
    assert found == {Traffic("all-reduce", 2, True): (1.0, 256.0)}


@pytest.mark.parametrize(
    ("left", "right", "out", "attributes", "flops"),
    [
        ("f32[32,64]", "f32[64,16]", "f32[32,16]", "dim_labels=bf_io->bf", 2 * 32 * 64 * 16),
        # A product over two axes, one of them as the window.
        (
            "f32[8,32,64]",
            "f32[8,64,16]",
            "f32[32,16,1]",
            "window={size=8}, dim_labels=0bf_0io->bf0",
            2 * 8 * 32 * 64 * 16,
        ),
        # Heads as a padded window: every head meets the one input place once.
        (
            "f32[32,64,1]",
            "f32[64,4,16]",
            "f32[32,4,16]",
            "window={size=4 pad=3_3 rhs_reversal=1}, dim_labels=bf0_i0o->b0f",
            2 * 32 * 64 * 4 * 16,
        ),
        # A batch axis as a dilated window: of 8 x 8 places 8 meet.
        (
            "f32[8,32,64]",
            "f32[8,64,16]",
            "f32[8,32,16]",
            "window={size=8 stride=7 pad=0_0 lhs_dilate=8}, dim_labels=0bf_0io->0bf",
            2 * 8 * 32 * 64 * 16,
        ),
    ],
)
def test_convolutions_count_places_that_meet(
    left: str, right: str, out: str, attributes: str, flops: int
) -> None:
    text = f"""HloModule one

ENTRY %main (a: {left}, b: {right}) -> {out} {{
  %a = {left} parameter(0)
  %b = {right} parameter(1)
  ROOT %c = {out} convolution(%a, %b), {attributes}
}}
"""
    assert cost_of(parse(text)).flops == flops


def test_updates_in_place_move_what_they_change() -> None:
    text = """HloModule one

%update (cache: bf16[64,1024], row: bf16[1,1024], i: s32[]) -> bf16[64,1024] {
  %cache = bf16[64,1024]{1,0} parameter(0)
  %row = bf16[1,1024]{1,0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %new = bf16[64,1024]{1,0} dynamic-update-slice(%cache, %row, %i, %i)
}

ENTRY %main (c: bf16[64,1024], r: bf16[1,1024], j: s32[]) -> bf16[64,1024] {
  %c = bf16[64,1024]{1,0} parameter(0)
  %r = bf16[1,1024]{1,0} parameter(1)
  %j = s32[] parameter(2)
  ROOT %out = bf16[64,1024]{1,0} fusion(%c, %r, %j), kind=kLoop, calls=%update
}
"""
    assert cost_of(parse(text)).hbm_bytes == 2 * 2048 + 4


def test_what_goes_to_the_host_and_back_is_counted_by_its_slices() -> None:
    text = """HloModule one

ENTRY %main (h: bf16[64,1024], r: bf16[1,1024], j: s32[]) -> bf16[1,1024] {
  %h = bf16[64,1024]{1,0:T(8,128)S(5)} parameter(0)
  %r = bf16[1,1024]{1,0:T(8,128)} parameter(1)
  %j = s32[]{:S(6)} parameter(2)
  %u = (OPERANDS, bf16[64,1024]{1,0:S(5)}, u32[]{:S(2)}) dynamic-update-slice-start(%h, %r, %j, %j)
  %v = bf16[64,1024]{1,0:S(5)} dynamic-update-slice-done(%u)
  %s = (FROM, bf16[1,1024]{1,0}, u32[]{:S(2)}) dynamic-slice-start(%v, %j, %j)
  ROOT %t = bf16[1,1024]{1,0} dynamic-slice-done(%s)
}
"""
    index = "s32[]{:S(6)}"
    text = text.replace("OPERANDS", f"(bf16[64,1024]{{1,0:S(5)}}, bf16[1,1024]{{1,0}}, {index}, {index})")
    text = text.replace("FROM", f"(bf16[64,1024]{{1,0:S(5)}}, {index}, {index})")
    cost = cost_of(parse(text))
    assert (cost.host_bytes, cost.hbm_bytes) == (2 * 2048, 2 * 2048)


def test_flops_of_real_programs_are_those_of_their_products() -> None:
    def step(x_ND: jax.Array, w_LDD: jax.Array) -> jax.Array:
        def layer(x_ND: jax.Array, w_DD: jax.Array) -> tuple[jax.Array, None]:
            return jnp.tanh(x_ND @ w_DD), None

        return jax.lax.scan(layer, x_ND, w_LDD)[0].sum()

    x_ND, w_LDD = jnp.ones((64, 256)), jnp.ones((5, 256, 256))
    forward = 5 * 2 * 64 * 256 * 256
    for function, flops in ((step, forward), (jax.grad(step, argnums=(0, 1)), 3 * forward)):
        text = jax.jit(function).lower(x_ND, w_LDD).compile().as_text()
        assert cost_of(parse(text)).total().flops == flops


def test_a_micro_batch_loop_is_unknown_and_a_scan_in_it_is_not() -> None:
    def step(count: jax.Array, x_NN: jax.Array) -> jax.Array:
        def body(_: jax.Array, x_NN: jax.Array) -> jax.Array:
            return jax.lax.scan(lambda x_NN, _: (jnp.tanh(x_NN @ x_NN), None), x_NN, None, length=3)[0]

        return jax.lax.fori_loop(0, count, body, x_NN)

    text = jax.jit(step).lower(jnp.int32(4), jnp.ones((32, 32))).compile().as_text()
    assert cost_of(parse(text)).total((10,)).flops == 10 * 3 * 2 * 32**3


def test_text_that_is_no_program_is_refused() -> None:
    with pytest.raises(ValueError, match="ENTRY"):
        parse("nothing")
