"""What an engine is compiled for: how many slots fit."""

from dataclasses import replace

import pytest

from jax_sft.config import EvaluationConfig
from jax_sft.errors import UsageError
from jax_sft.generation.shapes import shape_of

pytestmark = pytest.mark.short


def test_slots_whose_page_table_has_no_room_are_refused() -> None:
    """As the compiler does, which names neither: 1,030 sequences of 32,768 positions are 1,054,720 bytes."""
    many = EvaluationConfig(slots=2060, context=32_768)
    with pytest.raises(UsageError, match=r"evaluation.slots 2060.*992 slots of 256 pages; lower it to 1984"):
        shape_of(many, "tpu", 2, 1)
    for fits in (replace(many, slots=1984), replace(many, page_size=256)):
        assert shape_of(fits, "tpu", 2, 1).slots == fits.slots
