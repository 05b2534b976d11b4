"""Flags of runs and of the evaluation: defaults, every field, and complaints in one line."""

import pytest

from jax_sft.config import DataConfig, EvaluationConfig, OptimizerConfig, Run
from jax_sft.errors import UsageError
from jax_sft.flags import flag_names, parse_evaluation_flags, parse_run_flags

pytestmark = pytest.mark.short

RUN = Run(name="cot", epochs=3.0, optimizer=OptimizerConfig(learning_rate=1e-3, schedule="constant"))


def test_flags_change_what_they_name_and_nothing_else() -> None:
    assert parse_run_flags(RUN, []) == RUN
    run = parse_run_flags(
        RUN, ["--optimizer.learning-rate", "1e-4", "--remat", "full", "--data.rows=640", "--init", "run:b"]
    )
    assert run == Run(
        name="cot",
        init="run:b",
        epochs=3.0,
        remat="full",
        data=DataConfig(rows=640),
        optimizer=OptimizerConfig(learning_rate=1e-4, schedule="constant"),
    )
    assert parse_evaluation_flags(EvaluationConfig(chunk=4), ["--evaluation.slots", "8"]) == EvaluationConfig(
        slots=8, chunk=4
    )


def test_options_are_pairs_or_when_the_run_has_them_flags_of_their_own() -> None:
    run = parse_run_flags(RUN, ["--data.options", "depth", "2", "traces", "True", "p", "0.5", "name", "x"])
    assert run.data.options == {"depth": 2, "traces": True, "p": 0.5, "name": "x"}
    again = parse_run_flags(run, ["--data.options.depth", "3"])
    assert again.data.options == {"depth": 3, "traces": True, "p": 0.5, "name": "x"}


def test_every_field_is_a_flag() -> None:
    names = flag_names(Run)
    assert {"--name", "--optimizer.beta1", "--model.num-kv-heads", "--snapshots.schedule"} <= set(names)
    for name in names:
        assert "_" not in name


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--optimizer.lerning-rate", "1"],
            "unknown flag --optimizer.lerning-rate; did you mean --optimizer.learning-rate",
        ),
        (["--optimizer.lr", "1"], "unknown flag --optimizer.lr; did you mean --optimizer.learning-rate"),
        (["--learning_rate=1"], "unknown flag --learning-rate; did you mean --optimizer.learning-rate"),
        (["--roots", "x"], "unknown flag --roots; did you mean --root"),
        (["--zzzzzz"], "unknown flag --zzzzzz; see --help"),
        (["--epochs", "two"], "--epochs: could not convert string to float: 'two'"),
        (["--data.rows", "1.5"], "--data.rows: "),
        (["--epochs"], "Missing value for argument '--epochs'"),
        (["--optimizer.schedule", "linear"], "invalid choice 'linear' for argument '--optimizer.schedule'"),
        (["stray"], "unexpected argument 'stray'"),
    ],
)
def test_a_wrong_flag_is_one_clear_line(
    args: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError) as error:
        parse_run_flags(RUN, args, also=["--root"])
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")
