"""Hub ids: what is fetched, what comes first, and what is said when nothing can be had."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from jax_sft import hub
from jax_sft.errors import JaxSftError, UsageError

pytestmark = pytest.mark.short


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """What the hub was asked for; it answers with a folder."""
    made: list[dict[str, Any]] = []

    def fetch(name: str, **options: Any) -> str:
        made.append({"name": name, **options})
        return str(tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    return made


def test_an_id_is_fetched_without_pickles_and_code(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    assert hub.local_folder("Qwen/Qwen3-8B-Base@v1", hub.WEIGHTS) == tmp_path / "cache"
    assert calls == [
        {
            "name": "Qwen/Qwen3-8B-Base",
            "repo_type": "model",
            "revision": "v1",
            "allow_patterns": list(hub.WEIGHTS),
        },
    ]
    fetched = {*hub.WEIGHTS, *hub.TOKENIZER}
    assert not any(pattern.endswith((".py", ".bin", ".pt", "*")) for pattern in fetched)


def test_folders_come_first(
    calls: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "export").mkdir(parents=True)
    for spec in ("runs/export", str(tmp_path / "nowhere"), "gs://bucket/model", "a/b/c"):
        assert str(hub.local_folder(spec, hub.WEIGHTS)) == spec
    assert calls == []


@pytest.mark.parametrize(
    ("failure", "kind", "said"),
    [
        (errors.LocalEntryNotFoundError("cannot find\nthe files"), JaxSftError, "gave no answer"),
        (errors.OfflineModeIsEnabled("offline"), JaxSftError, "gave no answer"),
        (OSError("no route"), JaxSftError, "no route"),
        (errors.HFValidationError("bad id"), UsageError, "check the spelling"),
    ],
)
def test_failures_are_one_line(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, kind: type[JaxSftError], said: str
) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise failure

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(JaxSftError, match=said) as caught:
        hub.local_folder("Qwen/Qwen3-8B", hub.WEIGHTS)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("hub:owner/one", ["Math-CoT-20k.parquet"]),
        ("hub:owner/split", ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]),
        ("hub:owner/split:data/test.parquet", ["data/test.parquet"]),
        ("hub:owner/split@v2:more", ["more/a.jsonl", "more/b.jsonl"]),
    ],
)
def test_files_of_a_data_set(
    calls: list[dict[str, Any]], tmp_path: Path, spec: str, found: list[str]
) -> None:
    files = {
        "owner/one": ["Math-CoT-20k.parquet", "README.md"],
        "owner/split": [
            "data/train-00001-of-00002.parquet",
            "data/train-00000-of-00002.parquet",
            "data/test.parquet",
            "more/b.jsonl",
            "more/a.jsonl",
        ],
    }
    folder = tmp_path / "cache"
    for name in files[spec.removeprefix("hub:").split(":")[0].split("@")[0]]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    assert [path.relative_to(folder).as_posix() for path in hub.data_files(spec)] == found
    assert calls[0]["repo_type"] == "dataset"
    assert calls[0]["revision"] == ("v2" if "@" in spec else None)


def test_unclear_data_sets_are_refused(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    with pytest.raises(UsageError, match="say which file with :FILE; there are no parquet or json files"):
        hub.data_files("hub:owner/name")
    for name in ("a.jsonl", "b.jsonl"):
        (folder / name).touch()
    with pytest.raises(UsageError, match=r"say which file with :FILE; there are a.jsonl, b.jsonl"):
        hub.data_files("hub:owner/name")
    with pytest.raises(UsageError, match="is not hub:OWNER/NAME"):
        hub.data_files("hub:name")
    assert len(calls) == 2
