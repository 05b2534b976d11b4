"""Stop texts from a benchmark's sampling to its completions and the record of its unit."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from jax_sft.config import Sampling, replace
from jax_sft.errors import UsageError
from jax_sft.evaluation.sweep import Sweep
from jax_sft.study.lines import read_completions
from jax_sft.study.records import UnitRecord
from tests.evaluation.tiny import BENCHMARKS, study, unit

STOP = "e"


def test_a_sweep_cuts_completions_before_stop_texts(swept: Path) -> None:
    stopping = replace(BENCHMARKS[0], name="stopping", sampling=Sampling(stop=(STOP, "zzz")))
    whole = study(swept, benchmarks=(stopping,))
    sweeper = Sweep(whole, [stopping], Console(file=io.StringIO()))
    sweeper.generate(sweeper.todo(whole.run("first"), [2]))
    before, after = (
        list(read_completions(unit(swept, "first", 2, name) / "completions.jsonl"))
        for name in ("reasoning", "stopping")
    )
    assert [line.completion for line in after] == [line.completion.partition(STOP)[0] for line in before]
    cut = [line for line, old in zip(after, before, strict=True) if STOP in old.completion]
    assert 0 < len(cut) < len(after)
    assert {line.finish for line in cut} == {"stop"}
    record = UnitRecord.read(unit(swept, "first", 2, "stopping"))
    assert record is not None
    assert record.settings["stop"] == '["e", "zzz"]'
    plain = replace(stopping, sampling=Sampling())
    with pytest.raises(UsageError, match=r'was drawn with stop \["e", "zzz"\], now it is none; restore it'):
        Sweep(study(swept, benchmarks=(plain,)), [plain], Console(file=io.StringIO()))
