"""The scripts for TPU slices, on this machine: a stand-in for gcloud runs what a host would be told."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

GCLOUD = """#!/usr/bin/env bash
while (($#)); do
    [ "$1" = --command ] && exec bash -c "$2"
    shift
done
"""
JAX_SFT = """#!/usr/bin/env bash
trap 'echo saved; exit 0' TERM
echo "$@"
while :; do sleep 0.05; done
"""


def call(script: str, *words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = f"{folder / 'bin'}:{os.environ['PATH']}" if folder else os.environ["PATH"]
    return subprocess.run(
        [str(REPOSITORY / "tpu_scripts" / script), *words],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A home folder with an installed clone, whose jax-sft says its arguments and waits."""
    for name, text in (("bin/gcloud", GCLOUD), ("jax_sft/.venv/bin/jax-sft", JAX_SFT)):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def wait_for(text: str, log: Path) -> None:
    end = time.monotonic() + 20
    while not (log.exists() and text in log.read_text()):
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.02)


def test_train_starts_once_and_stop_tells_it_to_save(host: Path) -> None:
    log = host / "jax_sft" / "train.log"
    words = ("slice", "--zone", "z", "--", "my study.py", "--root", "gs://b")
    assert "started" in call("train", *words, folder=host).stdout
    wait_for("train my study.py --root gs://b\n", log)
    assert "is training already" in call("train", *words, folder=host).stdout
    assert call("stop", "slice", "--zone", "z", folder=host).stdout == ""
    wait_for("saved", log)


def test_stop_without_training_says_so(host: Path) -> None:
    assert "nothing is training" in call("stop", "slice", "--zone", "z", folder=host).stdout


@pytest.mark.parametrize(
    ("script", "words"),
    [("set_up", ["repository"]), ("check", []), ("train", ["--", "s.py"]), ("logs", ["1"]), ("stop", [])],
)
def test_dry_run_shows_the_command(script: str, words: list[str]) -> None:
    done = call(script, "slice", "--zone", "z", "--dry-run", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("gcloud compute tpus tpu-vm ssh slice --zone z --worker ")


@pytest.mark.parametrize(
    ("script", "words", "told"),
    [
        ("check", [], "name the slice"),
        ("check", ["slice"], "--zone ZONE"),
        ("train", ["slice", "--zone", "z"], "name the study"),
        ("set_up", ["slice", "--zone", "z"], "name the repository"),
    ],
)
def test_what_is_missing_is_named(script: str, words: list[str], told: str) -> None:
    done = call(script, *words)
    assert done.returncode == 2
    assert told in done.stderr
