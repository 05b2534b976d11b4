"""What an engine reads while it decodes: counted, not measured."""

from typing import Any

import numpy as np


class Meter:
    """Counts what an engine's decode reads: bytes of weights, of pages, and of those positions alive."""

    def __init__(self, engine: Any) -> None:
        """Stands between the engine and its decode program."""
        import jax

        self._decode, self._engine = engine._decode, engine
        engine._decode = self
        self.weights, self.read, self.alive = 0, 0, 0
        sizes = [leaf.nbytes for leaf in jax.tree.leaves(engine._params)]
        config = engine.model
        tied = 1 if config.tie_embeddings else 0  # an embedding that is no head is read by the row
        self._weight_bytes = sum(sizes) - (0 if tied else config.vocab_size * config.hidden_size * 4)
        self._token_bytes = 2 * 4 * config.num_layers * config.num_kv_heads * config.head_dim
        self._position_B: Any = np.zeros(engine.shape.slots, int)

    def __call__(self, params: Any, slots: Any, turn: Any) -> Any:
        from jax_sft.models.pages import PARTS

        slots, chunk = self._decode(params, slots, turn)
        shape = self._engine.shape
        made_B = np.asarray(chunk.made_B)
        self._position_B = np.where(turn.starts_B, turn.position_B, self._position_B)
        steps, part = int(made_B.max()), shape.pages // PARTS
        busy_B = made_B > 0
        used = {
            int(page) // part
            for slot in np.flatnonzero(busy_B)
            for page in turn.table_BN[slot, : -(-self._position_B[slot] // shape.page)]
        }
        recent = shape.slots * shape.chunk
        self.weights += steps * self._weight_bytes
        self.read += steps * (len(used) * part * shape.page + recent) * self._token_bytes
        whole = made_B * self._position_B + made_B * (made_B + 1) // 2
        self.alive += int(whole.sum()) * self._token_bytes
        self._position_B = self._position_B + made_B
        return slots, chunk
