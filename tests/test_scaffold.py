"""The ground the project stands on: finding a Python, exact versions, tests that never skip."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.short

REPOSITORY = Path(__file__).resolve().parent.parent
THIS = f"{sys.version_info[0]}.{sys.version_info[1]}"
SHIM_THAT_FAILS = '#!/bin/sh\necho "pyenv: command not found" >&2\nexit 127\n'


def find_python(
    path: list[Path], home: Path, *versions: str, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run scripts/find_python with these folders first on an otherwise bare PATH."""
    bare = home / "bare"
    if not bare.exists():
        bare.mkdir(parents=True)
        for tool in ("env", "bash", "sort", "awk", "grep"):
            found = next(
                Path(folder) / tool for folder in ("/usr/bin", "/bin") if (Path(folder) / tool).exists()
            )
            (bare / tool).symlink_to(found)
    environment = {"PATH": os.pathsep.join(map(str, [*path, bare])), "HOME": str(home), **more}
    script = str(REPOSITORY / "scripts" / "find_python")
    return subprocess.run([script, *versions], env=environment, capture_output=True, text=True, check=False)


def write_shim(file: Path, text: str = SHIM_THAT_FAILS) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file


def working_shim(file: Path) -> Path:
    return write_shim(file, f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')


def test_a_shim_that_only_prints_an_error_is_passed_over(tmp_path: Path) -> None:
    write_shim(tmp_path / "first" / f"python{THIS}")
    working_shim(tmp_path / "second" / f"python{THIS}")
    found = find_python([tmp_path / "first", tmp_path / "second"], tmp_path, THIS)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == sys.executable


def test_a_python_among_pyenvs_versions_is_found(tmp_path: Path) -> None:
    write_shim(tmp_path / "shims" / f"python{THIS}")
    working_shim(tmp_path / ".pyenv" / "versions" / f"{THIS}.1" / "bin" / "python")
    found = find_python([tmp_path / "shims"], tmp_path, "3.99", THIS)
    assert found.stdout.strip() == sys.executable


def test_a_python_of_another_version_than_its_name_is_not_taken(tmp_path: Path) -> None:
    shim = working_shim(tmp_path / "bin" / "python3.99")
    found = find_python([tmp_path / "bin"], tmp_path, "3.99")
    assert found.returncode == 1
    assert "no usable Python (3.99)" in found.stderr
    assert f"tried {shim}" in found.stderr


def test_a_named_python_is_used_and_a_wrong_one_refused(tmp_path: Path) -> None:
    shim = working_shim(tmp_path / "mine")
    assert find_python([], tmp_path, PYTHON=str(shim)).stdout.strip() == sys.executable
    wrong = write_shim(tmp_path / "wrong")
    assert find_python([], tmp_path, PYTHON=str(wrong)).returncode == 1


def pins() -> dict[str, list[str]]:
    """Package -> its lines in constraints.txt."""
    lines: dict[str, list[str]] = {}
    for line in (REPOSITORY / "requirements" / "constraints.txt").read_text().splitlines():
        lines.setdefault(re.split(r"[=; ]", line)[0], []).append(line)
    return lines


def test_every_version_is_exact_and_no_address_is_kept() -> None:
    for name, lines in pins().items():
        for line in lines:
            assert re.match(rf"{name}==[\w.+]+( ; .+)?$", line), line
    for file in (REPOSITORY / "requirements").iterdir():
        assert "://" not in file.read_text(), file


def test_every_dependency_has_a_pin() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(each for name in ("dev", "tpu", "wandb") for each in extras[name])]
    pinned = pins()
    for requirement in wanted:
        name = re.split(r"[\[><=]", requirement)[0].lower().replace("_", "-")
        assert name in pinned, requirement


def test_the_tests_run_on_eight_cpu_devices_and_refuse_rank_promotion() -> None:
    import jax
    import jax.numpy as jnp

    assert [device.platform for device in jax.devices()] == ["cpu"] * 8
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones((2, 3)) + jnp.ones(3)
