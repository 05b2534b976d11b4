"""A run's rows: read, checked and changed as its settings say, then rendered and tokenised once.

Tokenised rows are flat arrays with offsets.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from jax_sft.config import DataConfig, Run, Study, TokensConfig
from jax_sft.data.sources import load_rows
from jax_sft.data.transforms import parse_knobs, transform
from jax_sft.errors import UsageError
from jax_sft.tasks.rows import Row
from jax_sft.tokens.rendering import render_row
from jax_sft.tokens.templates import ChatTemplate
from jax_sft.tokens.tokenizer import Tokenizer


class RowSet(Protocol):
    """What a run needs to know of its rows: E of them, in memory (`TokenisedRows`) or prepared on disk."""

    @property
    def lengths_E(self) -> np.ndarray:
        """Tokens of each row, int64."""

    @property
    def targets_E(self) -> np.ndarray:
        """Target tokens of each row, int64."""

    @property
    def advantage_E(self) -> np.ndarray:
        """Factor on each row's weights, float32."""

    @property
    def dropped(self) -> int:
        """Rows left out because they were too long."""

    @property
    def truncated(self) -> int:
        """Rows whose right end was cut because they were too long."""

    @property
    def hash(self) -> str:
        """sha256 (hexadecimal) over token ids, masks, row ends and advantages, in order."""

    def __len__(self) -> int: ...

    def take(self, rows_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Token ids (int32) and targets (bool) of those rows, laid end to end."""


@dataclass(frozen=True, eq=False)
class TokenisedRows:
    """E rows, none empty, laid end to end in N tokens; row e is tokens offsets[e] up to offsets[e + 1]."""

    tokens_N: np.ndarray
    """Token ids, int32."""
    is_target_N: np.ndarray
    """Whether the token is learnt, bool; never true for the first token of a row."""
    offsets: np.ndarray
    """Where rows begin, int64 [E + 1]."""
    advantage_E: np.ndarray
    """Factor on the row's weights, float32."""
    dropped: int = 0
    """Rows left out because they were too long."""
    truncated: int = 0
    """Rows whose right end was cut because they were too long."""

    def __len__(self) -> int:
        return len(self.advantage_E)

    @property
    def lengths_E(self) -> np.ndarray:
        """Tokens of each row, int64 [E]."""
        return np.diff(self.offsets)

    @property
    def targets_E(self) -> np.ndarray:
        """Target tokens of each row, int64 [E]."""
        return np.add.reduceat(self.is_target_N, self.offsets[:-1], dtype=np.int64)

    def take(self, rows_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Token ids (int32) and targets (bool) of those rows, laid end to end."""
        lengths_B = self.lengths_E[rows_B]
        before_B = np.cumsum(lengths_B) - lengths_B
        source_N = np.arange(lengths_B.sum()) + np.repeat(self.offsets[rows_B] - before_B, lengths_B)
        return self.tokens_N[source_N], self.is_target_N[source_N]

    @property
    def hash(self) -> str:
        """sha256 (hexadecimal) over token ids, masks, row ends and advantages, in order."""
        digest = hashlib.sha256()
        for values, dtype in (
            (self.tokens_N, "<i4"),
            (self.is_target_N, "|b1"),
            (self.offsets, "<i8"),
            (self.advantage_E, "<f4"),
        ):
            digest.update(np.ascontiguousarray(values, dtype=dtype).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class RowSource:
    """Which rows a run trains on, by its settings; nothing is read before it is asked for."""

    data: DataConfig
    tokens: TokensConfig
    seed: int
    data_root: str = ""

    @staticmethod
    def of(study: Study, run: Run) -> "RowSource":
        """What a run of a study trains on."""
        return RowSource(run.data, run.tokens, run.seed, study.data_root)

    def rows(self) -> list[Row]:
        """The source's rows, checked, after `data.knobs`; UsageError for rows that cannot be trained on."""
        rows = load_rows(self.data, self.seed, self.data_root)
        return transform(rows, parse_knobs(self.data.knobs), self.seed)

    def tokenised(self, tokenizer: Tokenizer, template: ChatTemplate) -> TokenisedRows:
        """The rows rendered and tokenised, in memory."""
        data = self.data
        return tokenise(self.rows(), tokenizer, template, self.tokens.end, data.row_length, data.too_long)


def tokenise(
    rows: Sequence[Row],
    tokenizer: Tokenizer,
    template: ChatTemplate,
    end: Literal["end_of_text", "end_of_turn"],
    max_length: int,
    too_long: Literal["drop", "truncate"] = "drop",
) -> TokenisedRows:
    """Render and tokenise every row, and apply the policy for rows of more than `max_length` tokens.

    `drop` leaves such a row out. `truncate` cuts its right end, as the paper does: the end token is lost
    and the last kept position has nothing to predict. A row cut before its response has no target and
    stays in its batch. Raises UsageError when nothing is left to learn.
    """
    if max_length < 2:
        raise UsageError(f"data.row_length must be at least 2, found {max_length}")
    tokens: list[np.ndarray] = []
    is_target: list[np.ndarray] = []
    advantages: list[float] = []
    too_long_count = longest = 0
    for row in rows:
        try:
            rendered = render_row(tokenizer, template, end, row.messages, row.answer, row.tools)
        except UsageError as error:
            raise UsageError(f"row {row.id}: {error}") from None
        length = len(rendered.ids)
        longest = max(longest, length)
        if length > max_length:
            too_long_count += 1
            if too_long == "drop":
                continue
        tokens.append(np.asarray(rendered.ids[:max_length], np.int32))
        is_target.append(np.asarray(rendered.is_target[:max_length], np.bool_))
        advantages.append(row.advantage)
    if not any(mask.any() for mask in is_target):
        raise UsageError(
            f"none of the {len(rows)} rows has a response within data.row_length {max_length} "
            f"(the longest has {longest} tokens): raise data.row_length"
        )
    return TokenisedRows(
        tokens_N=np.concatenate(tokens),
        is_target_N=np.concatenate(is_target),
        offsets=np.concatenate([[0], np.cumsum([len(ids) for ids in tokens])]).astype(np.int64),
        advantage_E=np.asarray(advantages, np.float32),
        dropped=too_long_count if too_long == "drop" else 0,
        truncated=too_long_count if too_long == "truncate" else 0,
    )
