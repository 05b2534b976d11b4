"""What a layer keeps for its backward pass; the rest is computed again.

| policy         | kept on the device, per layer and token            |
| -------------- | -------------------------------------------------- |
| none           | everything                                         |
| minimal        | the result of every matrix product                 |
| save_qkv       | the layer's input; queries, keys and values        |
| save_attention | the layer's input; the attention kernel's results  |
| offload        | as save_attention, but in the host's memory        |
| full           | the layer's input                                  |

The attention kernel's results are named in it, so that `save_attention` spares its second run on TPU.
`offload` wants one packed row a device and micro-batch: with more, the compiler copies all that lies on the
host, layer by layer.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from jax_sft.config import Remat
from jax_sft.models.attention import QKV
from jax_sft.models.kernels.splash import RESIDUALS

_policies = jax.checkpoint_policies
POLICIES: dict[str, Callable[..., Any]] = {
    "minimal": _policies.save_from_both_policies(
        _policies.dots_with_no_batch_dims_saveable, _policies.save_only_these_names(RESIDUALS)
    ),
    "save_qkv": _policies.save_only_these_names(QKV),
    "save_attention": _policies.save_only_these_names(RESIDUALS),
    "offload": _policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=["residual", RESIDUALS],
        offload_src="device",
        offload_dst="pinned_host",
    ),
    "full": _policies.nothing_saveable,
}


def rematerialised(block: type[nn.Module], remat: Remat) -> Any:
    """The layer `block`, keeping for the backward pass what the policy `remat` says."""
    return block if remat == "none" else nn.remat(block, prevent_cse=False, policy=POLICIES[remat])
