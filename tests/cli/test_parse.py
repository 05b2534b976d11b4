"""Flags of runs and of the evaluation: defaults, every field, and complaints in one line."""

import pytest

from jax_sft.cli.parse import flag_names, parse_evaluation_flags, parse_flags, parse_run_flags
from jax_sft.config import DataConfig, EvaluationConfig, ModelConfig, OptimizerConfig, Run, replace
from jax_sft.errors import UsageError
from jax_sft.options import PlanOptions

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


@pytest.mark.parametrize(
    "args",
    [
        ["--data.options", "depth", "3", "other", "-4", "--seed", "7"],
        ["--data.options=depth", "3", "other", "-4", "--seed", "7"],
        ["--data.options.depth", "3", "--seed", "7", "--data.options", "other", "-4"],
    ],
)
def test_pairs_change_and_add_options_to_those_the_run_has(args: list[str]) -> None:
    run = replace(RUN, data=DataConfig(options={"depth": 2, "traces": True}, knobs={"subset": 8}))
    changed = parse_run_flags(run, args)
    options = {"depth": 3, "traces": True, "other": -4}
    assert changed == replace(RUN, seed=7, data=DataConfig(options=options, knobs={"subset": 8}))
    assert run.data.options == {"depth": 2, "traces": True}


@pytest.mark.parametrize("word", ["true", "True", "yes", "ON", "1"])
def test_switches_take_the_words_that_people_type(word: str) -> None:
    run = replace(RUN, data=DataConfig(options={"traces": False, "is_small": False}))
    assert parse_run_flags(run, ["--data.shuffle", word, "--seed", "1"]).data.shuffle
    assert parse_run_flags(run, [f"--data.shuffle={word}"]).data.shuffle
    assert parse_run_flags(run, ["--data.options.is_small", word]).data.options["is_small"] is True
    assert parse_flags(PlanOptions, ["--search", word, "--chips", "v5p:8"]).search


@pytest.mark.parametrize("word", ["false", "False", "no", "Off", "0"])
def test_switches_are_turned_off_by_words(word: str) -> None:
    run = replace(
        RUN, data=DataConfig(shuffle=True, options={"traces": True}), model=ModelConfig(qk_norm=True)
    )
    args = ["--data.shuffle", word, f"--model.qk_norm={word}", "--data.options.traces", word]
    changed = parse_run_flags(run, args)
    assert (changed.data.shuffle, changed.model.qk_norm, changed.data.options) == (
        False,
        False,
        {"traces": False},
    )
    assert not parse_flags(PlanOptions, ["--search", word]).search


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--data.shuffle", "maybe"], "unexpected argument 'maybe'"),
        (["--data.options", "depth"], "--data.options: Failed to parse key-value pairs!"),
        (["--data.options.depht", "3"], "unknown flag --data.options.depht; did you mean --data.options "),
        (["--optimizer.lr", "1"], "unknown flag --optimizer.lr; did you mean --optimizer.learning-rate"),
        (["--epochs", "two"], "--epochs: could not convert string to float: 'two'"),
        (["stray"], "unexpected argument 'stray'"),
    ],
)
def test_a_wrong_flag_is_as_clear_where_the_run_has_options(args: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_run_flags(replace(RUN, data=DataConfig(options={"depth": 2})), args)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


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
        (["--root", "x"], "unknown flag --root; did you mean --remat?"),
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
