"""`jax-sft data …`, from the words typed to the files written."""

import json
from pathlib import Path

import pytest

from jax_sft.cli.main import main
from tests.conftest import REPOSITORY

STUDY = str(REPOSITORY / "configs" / "quickstart.py")


def write_pool(path: Path) -> Path:
    rows = [
        {"question": f"What is {n} + 1?", "response": f"It is \\boxed{{{n + right}}}.", "answer": str(n + 1)}
        for n in range(1, 7)
        for right in (1, 2)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_built_set_is_named_and_not_built_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "build", "countdown_cot", str(tmp_path), "--rows", "20"]
    assert main(words) == 0
    built = Path(capsys.readouterr().out.splitlines()[-1].removeprefix("set: "))
    assert json.loads((built / "dataset_info.json").read_text())["splits"][0]["shardLengths"] == ["20"]
    assert main(words) == 2
    assert str(built) in capsys.readouterr().err


def test_verify_keeps_one_right_response_a_query(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "set.jsonl"
    assert main(["data", "verify", str(write_pool(tmp_path / "pool.jsonl")), str(out), "--workers", "1"]) == 0
    assert "6 right, 6 wrong" in " ".join(capsys.readouterr().out.split())
    assert len(out.read_text().splitlines()) == 6


def test_describe_writes_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "data.html"
    assert main(["data", "describe", STUDY, "--runs", "cot", "--page", str(page)]) == 0
    assert "2,400" in capsys.readouterr().out
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_describe_does_not_write_over_its_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "response": "b"}\n')
    study = tmp_path / "study.py"
    study.write_text(
        "from jax_sft.config import *\n"
        f"def study(): return Study('s', (Run(data=DataConfig(source={str(rows)!r})),))\n"
    )
    assert main(["data", "describe", str(study), "--page", str(rows)]) == 2
    assert "would be written over" in capsys.readouterr().err
    assert rows.read_text().startswith('{"prompt"')


def test_prepare_says_how_rows_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "prepare", STUDY, "--runs", "nocot", "--root", str(tmp_path)]) == 0
    assert "nocot: 2400 rows" in capsys.readouterr().out
    assert list((tmp_path / "prepared").iterdir())


@pytest.mark.parametrize("words", [["--help"], ["-h"], []])
def test_help_lists_the_verbs_of_data(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *words]) == (0 if words else 2)
    said = capsys.readouterr()
    assert said.err == ""
    for verb in ("build", "verify", "describe", "prepare"):
        assert f"  jax-sft data {verb} " in said.out
    assert "jax-sft train" not in said.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["build", "nothing", "sets"], "set 'nothing' is not one of countdown_cot,"),
        (["build", "math_cot", "sets"], "name it as the source"),
        (["verify", "absent.jsonl", "out.jsonl"], "absent.jsonl: no such file"),
        (["verify", "pool.jsonl", "out.jsonl", "--benchmarks", "absent.jsonl"], "absent.jsonl"),
        (["verify", "pool.jsonl", "out.jsonl", "--workers", "0"], "--workers 0: is not at least 1"),
        (["verify", "pool.jsonl", "out.jsonl", "--seconds", "0"], "--seconds 0.0: is not above 0"),
        (["verify", "pool.jsonl", "out.jsonl", "--ngram", "0"], "--ngram 0: is not at least 1"),
        (["verify", "pool.jsonl", "out.jsonl", "--keep", "some"], "--keep some: is neither one nor all"),
        (["verify", "pool.jsonl", "out.txt"], "must end in .jsonl"),
        (["describe", STUDY, "--runs", "other"], "the study has no run 'other'"),
        (["polish"], "unknown command 'data polish'"),
    ],
)
def test_wrong_words_are_one_clear_line(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pool(tmp_path / "pool.jsonl")
    assert main(["data", *words]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["pool.jsonl"]
