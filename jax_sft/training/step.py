"""The train step: (state, batch) -> (state, metrics), one compiled program whatever the batch holds."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jax_sft.config import Run, replace
from jax_sft.models import Params
from jax_sft.models.decoder import forward_rows, head_kernel
from jax_sft.models.lora import fold, merge, split, without_adapters
from jax_sft.models.params import boxed_params
from jax_sft.models.vocabulary import Options
from jax_sft.packed import Rows
from jax_sft.sharding import place_abstract, replicated, shardings_of
from jax_sft.training.loss import weighted_nll
from jax_sft.training.optimizer import learning_rate, make_optimizer, update
from jax_sft.training.placement import DeviceBatch, batch_shardings

Metrics = dict[str, jax.Array]
TPU_OPTIONS = {
    "xla_jf_spmd_threshold_for_windowed_einsum_mib": "100000",
    "xla_tpu_use_minor_sharding_for_major_trivial_input": "true",
    "xla_tpu_relayout_group_size_threshold_for_reduce_scatter": "1",
    "xla_tpu_assign_all_reduce_scatter_layout": "true",
}
"""Of TPU's compiler. The first keeps the gather of a weight whole: cut into as many pieces as there are
devices, the product reads and writes its result once a piece, and sums it in bfloat16. The others let every
gradient be reduced to a device's own part of it where the slice can do that."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that training carries from step to step."""

    step: jax.Array
    """Updates done, int32; also the position in the data."""
    skipped: jax.Array
    """Updates left out because a gradient was not finite, int32."""
    params: Params
    """Master weights, in the run's `param_dtype`."""
    opt_state: optax.OptState


def init_state(run: Run, params: Params) -> TrainState:
    """The state before the first update, for given parameters (arrays or abstract)."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=make_optimizer(run.optimizer).init(split(params)[0]),
    )


def abstract_state(run: Run, mesh: Mesh) -> TrainState:
    """Shapes, types and shardings of the training state: made once and handed to all that derives from it.

    Adam's moments are sharded as the parameters they belong to, in the memory that the run names.
    """
    boxed = boxed_params(run.model, run.param_dtype, run.lora)
    state = place_abstract(jax.eval_shape(lambda params: init_state(run, params), boxed), mesh)
    if run.optimizer_memory == "device":
        return state
    return replace(state, opt_state=jax.tree.map(_on_host, state.opt_state))


def _on_host(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """The abstract array in the host's memory; a scalar stays where it is."""
    assert leaf.sharding is not None, "a state is placed"
    return leaf if not leaf.ndim else leaf.update(sharding=leaf.sharding.with_memory_kind("pinned_host"))


def mesh_of(wanted: TrainState) -> Mesh:
    """The mesh that an abstract state is placed on."""
    placed: Any = wanted.step.sharding
    return placed.mesh


def loss_and_gradients(params: Params, run: Run, batch: DeviceBatch) -> tuple[jax.Array, Params]:
    """Sum over the step's micro-batches of the weighted loss and its gradient, in float32.

    The gradient is with respect to the parameters that are learnt (`models.lora.split`).

    Each layer's gradient is added to its sum as soon as it is known, in the parameters' type: the gradient of
    a whole micro-batch never exists beside the sum.
    """

    learnt, frozen = split(params)

    def loss_of(learnt: Params, m: jax.Array) -> jax.Array:
        params = merge(learnt, frozen)
        rows: Rows = jax.tree.map(
            lambda x_MRT: jax.lax.dynamic_index_in_dim(x_MRT, m, keepdims=False), batch.rows
        )
        dtype = jnp.dtype(run.compute_dtype)
        hidden_RTD = forward_rows(params, run.model, rows, dtype, run.remat, run.lora)
        options = Options(by_probability=run.loss == "dft")
        kernel_DV = head_kernel(params, run.model)
        return weighted_nll(hidden_RTD, kernel_DV, rows.targets, rows.weights, options)

    sums = jax.tree.map(lambda p: jax.new_ref(jnp.zeros_like(p)), learnt)

    def body(m: jax.Array, loss: jax.Array) -> jax.Array:
        pullback: Any
        part, pullback = jax.vjp(partial(loss_of, m=m), learnt)
        pullback.with_refs(sums)(jnp.ones_like(part))
        return loss + part

    loss = jax.lax.fori_loop(0, batch.micro_batches, body, jnp.zeros((), jnp.float32))
    return loss, jax.tree.map(lambda sum_: jax.freeze(sum_).astype(jnp.float32), sums)


def train_step(
    state: TrainState, batch: DeviceBatch, run: Run, total_steps: int
) -> tuple[TrainState, Metrics]:
    """One update. A step whose gradient is not finite changes nothing but the two counters."""
    loss, gradients = loss_and_gradients(state.params, run, batch)
    norm = optax.tree.norm(gradients)
    rate = learning_rate(run.optimizer, state.step, total_steps)
    finite = jnp.isfinite(norm) & jnp.isfinite(loss)
    learnt, frozen = split(state.params)
    learnt, opt_state = update(run, learnt, gradients, state.opt_state, rate, finite)
    state = TrainState(
        step=state.step + 1,
        skipped=state.skipped + jnp.where(finite, 0, 1),
        params=merge(learnt, frozen),
        opt_state=opt_state,
    )
    metrics = {"loss": loss, "gradient_norm": norm, "learning_rate": rate, "skipped": state.skipped}
    return state, metrics


def compile_step(
    run: Run, wanted: TrainState, total_steps: int
) -> Callable[[TrainState, DeviceBatch], tuple[TrainState, Metrics]]:
    """The jitted train step for the run's abstract state and its mesh; it donates the state it is given."""
    in_state, mesh = shardings_of(wanted), mesh_of(wanted)
    return jax.jit(
        lambda state, batch: train_step(state, batch, run, total_steps),
        in_shardings=(in_state, batch_shardings(mesh)),
        out_shardings=(in_state, replicated(mesh)),
        donate_argnums=(0,),
        compiler_options=compiler_options(mesh),
    )


def compiler_options(mesh: Mesh) -> dict[str, str]:
    """What the compiler is told about the train step."""
    return TPU_OPTIONS if mesh.devices.flat[0].platform == "tpu" else {}


def compile_plain(run: Run, wanted: TrainState) -> Callable[[Params], Params]:
    """The jitted folding of adapters into the weights; without adapters it changes nothing."""
    if not run.lora.rank:
        return lambda params: params
    plain = shardings_of(without_adapters(wanted.params))
    return jax.jit(lambda params: fold(params, run.lora), out_shardings=plain)
