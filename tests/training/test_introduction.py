"""What a run says before it trains, and by what it knows the run that it goes on with."""

from pathlib import Path

import pytest
import tokenizers

from jax_sft.config import SnapshotConfig, replace
from jax_sft.errors import UsageError
from jax_sft.study.records import RunRecord
from jax_sft.terminal import messages
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.templates import load_template
from jax_sft.tokens.tokenizer import Tokenizer
from jax_sft.training.loop import introduce, prepare, train
from tests.training.runs import folder
from tests.training.tiny import RUN, study


def test_the_first_row_is_shown_once_unless_it_is_not_wanted(
    again: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(*study(again))
    said = capfd.readouterr().err
    assert said.count("the first row, its learnt part between ⟦ and ⟧:") == 1
    assert said.count("⟧") == 2
    train(*study(again, show_first_row=False))
    assert "⟧" not in capfd.readouterr().err
    introduce(RUN, prepare(*study(again)), messages(quiet=True))
    assert "⟧" not in capfd.readouterr().err, "other processes say nothing"


def test_warnings_come_before_training(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    short = replace(RUN.model, max_positions=4)
    train(*study(tmp_path, model=short, epochs=0.25, snapshots=SnapshotConfig("last")))
    said = capfd.readouterr().err.replace("\n", " ")
    assert said.count("positions of the model reach 4") == 1


def test_a_tokenizer_that_moved_goes_on_and_another_does_not(again: Path) -> None:
    """Its folder may be called otherwise; what it holds may not."""
    tokenizer = load_tokenizer(RUN.tokens)
    tokenizer.save(again / "moved")
    (again / "template.jinja").write_text(load_template(RUN.tokens, tokenizer).source)
    moved = replace(RUN.tokens, tokenizer=str(again / "moved"), template=str(again / "template.jinja"))
    (again / "rows.jsonl").rename(again / "other.jsonl")
    data = replace(RUN.data, source=str(again / "other.jsonl"))
    train(*study(again, tokens=moved, data=data))
    record = RunRecord.read(folder(again))
    assert record is not None
    assert record.tokenizer_hash == tokenizer.hash
    assert record.run.tokens == moved
    changed = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    changed.add_tokens(["<unused>"])
    Tokenizer("changed", changed, tokenizer.settings).save(again / "moved")
    with pytest.raises(UsageError, match=r"another configuration \(.*tokenizer_hash: "):
        train(*study(again, tokens=moved, data=data))


def test_a_record_without_the_tokenizers_hash_goes_by_its_name(again: Path) -> None:
    record = RunRecord.read(folder(again))
    assert record is not None
    replace(record, tokenizer_hash="").write(folder(again))
    train(*study(again))
    replace(record, tokenizer_hash="").write(folder(again))
    with pytest.raises(UsageError, match=r"tokens\.template: .*auto"):
        train(*study(again, tokens=replace(RUN.tokens, template="chatml")))
