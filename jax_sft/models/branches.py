"""Packed rows whose examples have branches: what comes before them is computed once for all of them."""

from typing import NamedTuple

import jax

from jax_sft.models.attention import attend_rows, has_kernel
from jax_sft.models.kernels.splash import splash_branches


class Branches(NamedTuple):
    """A token sees the earlier tokens of its own branch and of its example's branch 0. Nothing is kept."""

    segments_BT: jax.Array
    branches_BT: jax.Array
    """0 for what all branches of the example see."""

    def attend(self, q_BTHd: jax.Array, k_BTKd: jax.Array, v_BTKd: jax.Array) -> tuple[jax.Array, None]:
        attend = splash_branches if has_kernel(q_BTHd.shape[1]) else attend_rows
        return attend(q_BTHd, k_BTKd, v_BTKd, self.segments_BT, self.branches_BT), None
