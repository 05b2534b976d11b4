"""The scripts for TPU slices, on this machine: a stand-in for gcloud runs what a host would be told."""

import os
import shutil
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


@pytest.mark.parametrize("verb", ["train", "sweep"])
def test_what_runs_is_started_once_and_stop_tells_it_to_end(host: Path, verb: str) -> None:
    log = host / "jax_sft" / f"{verb}.log"
    words = ("slice", "--zone", "z", "--", "my study.py", "--root", "gs://b")
    assert "started" in call(verb, *words, folder=host).stdout
    wait_for(f"{verb} my study.py --root gs://b\n", log)
    for other in ("train", "sweep"):
        assert f"is at {verb} already" in call(other, *words, folder=host).stdout
    assert call("stop", "slice", "--zone", "z", folder=host).stdout == ""
    wait_for("saved", log)


def git(*words: str, folder: Path) -> str:
    names = ("-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *names, *words], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def repository(host: Path) -> Path:
    """A repository to clone, whose installation makes a python that does nothing; nothing is cloned yet."""
    shutil.rmtree(host / "jax_sft")
    folder = host / "repository"
    install = folder / "scripts" / "set_up_environment"
    install.parent.mkdir(parents=True)
    install.write_text("#!/bin/sh\nmkdir -p .venv/bin && ln -sf /bin/true .venv/bin/python\n")
    install.chmod(0o755)
    git("init", "--quiet", "--initial-branch=main", folder=folder)
    git("add", ".", folder=folder)
    git("commit", "--quiet", "--message=one", folder=folder)
    return folder


def test_set_up_again_updates_the_clone_to_a_branch_a_tag_or_a_hash(host: Path, repository: Path) -> None:
    def cloned(*commit: str) -> str:
        done = call("set_up", "slice", "--zone", "z", str(repository), *commit, folder=host)
        assert done.returncode == 0, done.stderr
        return git("rev-parse", "HEAD", folder=host / "jax_sft")

    def commit(*options: str) -> str:
        git("commit", "--quiet", "--allow-empty", "--message=more", *options, folder=repository)
        return git("rev-parse", "HEAD", folder=repository)

    first = git("rev-parse", "HEAD", folder=repository)
    assert cloned() == first
    second = commit()
    git("switch", "--quiet", "--create", "other/branch", folder=repository)
    third = commit()
    git("tag", "v1", folder=repository)
    git("switch", "--quiet", "main", folder=repository)
    assert cloned("main") == second
    assert [cloned(name) for name in ("other/branch", first[:10], "v1")] == [third, first, third]
    assert cloned() == second
    git("tag", "--force", "v1", first, folder=repository)
    assert cloned("v1") == first
    done = call("set_up", "slice", "--zone", "z", str(repository), "absent", folder=host)
    assert done.returncode == 2
    assert "the repository has no commit absent" in done.stderr


def test_stop_when_nothing_runs_says_so(host: Path) -> None:
    assert "nothing is running" in call("stop", "slice", "--zone", "z", folder=host).stdout


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("set_up", ["repository"]),
        ("check", []),
        ("train", ["--", "s.py"]),
        ("sweep", ["--", "s.py", "--worker", "0/2"]),
        ("logs", ["1"]),
        ("logs", ["1", "sweep"]),
        ("stop", []),
    ],
)
def test_dry_run_shows_the_command(script: str, words: list[str]) -> None:
    done = call(script, "slice", "--zone", "z", "--dry-run", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("gcloud compute tpus tpu-vm ssh slice --zone z --worker ")


def test_options_may_be_written_with_an_equals_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TPU_ZONE", "z")
    done = call("stop", "slice", "--zone=other", "--project=p", "--dry-run")
    assert done.stdout.startswith(
        "gcloud compute tpus tpu-vm ssh slice --zone other --project p --worker all"
    )


@pytest.mark.parametrize(
    ("script", "words", "told"),
    [
        ("check", [], "name the slice"),
        ("check", ["slice"], "--zone ZONE"),
        ("train", ["slice", "--zone", "z"], "name the study"),
        ("sweep", ["slice", "--zone", "z"], "name the study"),
        ("logs", ["slice", "--zone", "z", "0", "chat"], "logs of what? train or sweep, found 'chat'"),
        ("set_up", ["slice", "--zone", "z"], "name the repository"),
        ("stop", ["slice", "--zone", "z", "--dryrun"], "unknown option --dryrun; see stop --help"),
        ("train", ["slice", "--zone", "z", "-n", "--", "s.py"], "unknown option -n; see train --help"),
        ("train", ["slice", "--zone", "z", "s.py", "--root=r"], "unknown option --root=r"),
        ("stop", ["slice", "--zone", "--dry-run"], "--zone needs a value, found '--dry-run'"),
        ("stop", ["slice", "--zone", "z", "--project="], "--project needs a value"),
        ("stop", ["slice", "--zone"], "--zone needs a value"),
    ],
)
def test_a_wrong_or_missing_word_is_named_and_nothing_is_run(
    host: Path, script: str, words: list[str], told: str
) -> None:
    done = call(script, *words, folder=host)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert done.stdout == ""
