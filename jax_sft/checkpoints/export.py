"""One snapshot of a run as a Hugging Face folder."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jax_sft.checkpoints.store import load_snapshot
from jax_sft.config import Run, Study
from jax_sft.layout import run_folder
from jax_sft.models.decoder import init_params
from jax_sft.models.export import write_huggingface
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.templates import load_template


def export_snapshot(study: Study, run: Run, step: int, target: str) -> None:
    """Write the parameters after `step` updates, bit for bit as stored, with tokenizer and template.

    Raises:
        JaxSftError: no such snapshot, or one that is not sound.
    """
    device = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    shapes = jax.eval_shape(lambda: nn.unbox(init_params(run.model, jax.random.key(0))))
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16, sharding=device), shapes
    )
    params = load_snapshot(run_folder(study, run.name), step, abstract)
    tokenizer = load_tokenizer(run.tokens)
    write_huggingface(target, run.model, params, tokenizer, load_template(run.tokens, tokenizer))
