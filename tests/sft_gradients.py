"""Gradients under the names of the checkpoint, by the way an export takes."""

from typing import Any

import numpy as np

from jax_sft.config import ModelConfig
from jax_sft.models.families import family_of
from jax_sft.models.weights.write import Tensors


def as_tensors(tree: Any, config: ModelConfig, raw: dict[str, Any]) -> dict[str, np.ndarray]:
    """Every tensor of the checkpoint, cut out of a tree like the parameters."""
    tensors = Tensors(family_of(config, raw["model_type"]).table(config), config, tree)
    return {name: np.asarray(tensors.read(name)) for name in tensors.shapes}
