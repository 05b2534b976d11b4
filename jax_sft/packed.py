"""Packed rows: the arrays that loader, model and loss agree on, of one name from the first to the last."""

from typing import Any, NamedTuple

import numpy as np


class Rows(NamedTuple):
    """Packed rows of T tokens: arrays [..., T], numpy's on the host, JAX's on devices, or abstract ones.

    Examples in a packed row lie end to end, numbered from 1 in `segments`; padding is 0 in every array.
    """

    tokens: Any
    """Token ids, int32."""
    targets: Any
    """The next token of the same example, int32; None where nothing is learnt."""
    positions: Any
    """Of each token in its example, from 0, int32."""
    segments: Any
    """The example's number in its packed row, int32."""
    weights: Any
    """Of each target in the loss, float32: 0 on prompts, at the last token of an example and on padding."""

    @staticmethod
    def to_read(tokens: Any, positions: Any, segments: Any) -> "Rows":
        """Rows from which nothing is learnt."""
        return Rows(tokens, None, positions, segments, None)


TYPES = Rows(np.int32, np.int32, np.int32, np.int32, np.float32)


def empty_rows(shape: tuple[int, ...]) -> Rows:
    """Rows of nothing but padding, on the host."""
    return Rows(*(np.zeros(shape, dtype) for dtype in TYPES))
