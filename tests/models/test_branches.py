"""Branches after a common beginning: each token sees what it would see alone, by both ways to attend."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_sft.config import ParallelismConfig
from jax_sft.models.attention import attend_rows
from jax_sft.models.kernels.splash import splash_branches
from jax_sft.sharding import make_mesh

B, T, H, K, D = 2, 512, 4, 2, 128


def marked(*examples: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Segments and branches of a row: of each example the tokens before its branches, then of each branch."""
    segments, branches = np.zeros(T, np.int32), np.zeros(T, np.int32)
    at = 0
    for number, lengths in enumerate(examples, start=1):
        for branch, length in enumerate(lengths):
            segments[at : at + length], branches[at : at + length] = number, branch
            at += length
    return segments, branches


SEGMENTS_BT, BRANCHES_BT = map(
    np.stack,
    zip(
        marked(
            (100, 30, 50, 1), (0, 3, 4), (140, 100), (5,)
        ),  # one without a beginning, one without branches
        marked((1, 1, 1), (130, 200, 150)),
        strict=True,
    ),
)


def plain(q_BTHd: jax.Array, k_BTKd: jax.Array, v_BTKd: jax.Array) -> jax.Array:
    """The definition: softmax over what is visible, one T x T array for each head."""
    k_BTHd, v_BTHd = (jnp.repeat(x, H // K, axis=2) for x in (k_BTKd, v_BTKd))
    scores_BHTS = jnp.einsum("bthd,bshd->bhts", q_BTHd, k_BTHd) * D**-0.5
    same_BTS = SEGMENTS_BT[:, :, None] == SEGMENTS_BT[:, None]
    seen_BTS = (BRANCHES_BT[:, None] == 0) | (BRANCHES_BT[:, None] == BRANCHES_BT[:, :, None])
    visible_BTS = same_BTS & seen_BTS & np.tril(np.ones((T, T), bool))[None]
    weights_BHTS = jax.nn.softmax(jnp.where(visible_BTS[:, None], scores_BHTS, -jnp.inf), axis=-1)
    return jnp.einsum("bhts,bshd->bthd", weights_BHTS, v_BTHd)


@pytest.mark.parametrize("way", ["plain rows", "splash", "splash on a mesh"])
def test_branches_see_their_own_tokens_and_those_before_all_branches(way: str) -> None:
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.standard_normal((B, T, n, D)), jnp.float32) for n in (H, K, K))
    with jax.default_matmul_precision("highest"):
        want = np.asarray(plain(q, k, v))
        if way == "plain rows":
            got = attend_rows(q, k, v, jnp.asarray(SEGMENTS_BT), jnp.asarray(BRANCHES_BT))
        else:
            devices = 4 if "mesh" in way else 1
            mesh = make_mesh(ParallelismConfig(fsdp=devices // 2 or 1, tensor=-1), jax.devices()[:devices])
            with jax.set_mesh(mesh):
                attend = partial(splash_branches, interpret=True)
                got = jax.jit(attend)(q, k, v, jnp.asarray(SEGMENTS_BT), jnp.asarray(BRANCHES_BT))
    real_BT = SEGMENTS_BT > 0
    np.testing.assert_allclose(np.asarray(got)[real_BT], want[real_BT], atol=3e-6)
