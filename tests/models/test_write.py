"""Exported folders: bitwise round trips, whole or absent, and refusals."""

import errno
import json
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from etils import epath

from jax_sft.config import ModelConfig, TokensConfig
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.models.families import model_config_from_huggingface
from jax_sft.models.weights import write as export
from jax_sft.models.weights.read import load_pretrained
from jax_sft.models.weights.safetensors import SafetensorsFolder
from jax_sft.models.weights.write import write_huggingface
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.templates import load_template
from tests.random_models import random_config, write_model

TOKENS = TokensConfig(template="chatml")


def random_params(tmp_path: Path, number: int) -> tuple[ModelConfig, dict[str, Any]]:
    raw = {**random_config(number), "vocab_size": load_tokenizer(TOKENS).vocab_size + 18}
    config, params = load_pretrained(str(write_model(tmp_path / "source", raw)))
    return config, jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16), params)


def write(folder: Path, config: ModelConfig, params: dict[str, Any], shard_bytes: int = 10**9) -> None:
    tokenizer = load_tokenizer(TOKENS)
    write_huggingface(folder, config, params, tokenizer, load_template(TOKENS, tokenizer), shard_bytes)


@pytest.mark.parametrize("shard_bytes", [10**9, 5_000])
@pytest.mark.parametrize("number", range(6))
def test_import_of_an_export_is_bitwise(tmp_path: Path, number: int, shard_bytes: int) -> None:
    config, params = random_params(tmp_path, number)
    write(tmp_path / "export", config, params, shard_bytes)
    again, read = load_pretrained(str(tmp_path / "export"))
    assert again == config
    assert jax.tree.structure(read) == jax.tree.structure(params)
    for ours, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(read), strict=True):
        np.testing.assert_array_equal(ours.astype(np.float32), theirs)
    assert (shard_bytes == 5_000) == (tmp_path / "export" / "model.safetensors.index.json").exists()


def test_the_same_params_give_the_same_bytes(tmp_path: Path) -> None:
    config, params = random_params(tmp_path, 1)
    for name in ("one", "two"):
        write(tmp_path / name, config, params)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)


def test_an_internlm2_keeps_its_own_names_when_asked(tmp_path: Path) -> None:
    config, params = random_params(tmp_path, 3)
    tokenizer = load_tokenizer(TOKENS)
    template = load_template(TOKENS, tokenizer)
    write_huggingface(tmp_path / "own", config, params, tokenizer, template, family="internlm2")
    assert json.loads((tmp_path / "own" / "config.json").read_text())["model_type"] == "internlm2"
    own, source = (SafetensorsFolder(tmp_path / name) for name in ("own", "source"))
    assert own.shapes() == source.shapes()
    for name in own.shapes():
        np.testing.assert_array_equal(own.read(name), source.read(name).astype(ml_dtypes.bfloat16))


def test_tokenizer_template_and_stops_travel_along(tmp_path: Path) -> None:
    write(tmp_path / "export", *random_params(tmp_path, 2))
    tokenizer = load_tokenizer(TokensConfig(tokenizer=str(tmp_path / "export")))
    original = load_tokenizer(TOKENS)
    template = load_template(TokensConfig(), tokenizer)
    assert template.source == load_template(TOKENS, original).source
    assert tokenizer.encode("sort 3 1 2<|im_end|>") == original.encode("sort 3 1 2<|im_end|>")
    generation = json.loads((tmp_path / "export" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [0, 2]
    assert generation["pad_token_id"] == tokenizer.pad_id


def test_on_a_full_disk_an_export_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, params = random_params(tmp_path, 0)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export.files, "write_json", full)
    with pytest.raises(JaxSftError, match=r"export: cannot be written \(no space left on device\)"):
        write(tmp_path / "export", config, params)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_an_export_below_a_file_says_so(tmp_path: Path) -> None:
    config, params = random_params(tmp_path, 0)
    (tmp_path / "file").write_text("")
    with pytest.raises(JaxSftError, match=r"file/export: cannot be written \(not a directory\)"):
        write(tmp_path / "file" / "export", config, params)


def test_in_a_bucket_what_was_half_moved_is_no_export_and_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, params = random_params(tmp_path, 0)
    monkeypatch.setattr(export.files, "in_bucket", lambda target: True)
    half = tmp_path / "export"
    for folder in (half, tmp_path / ".export.partial"):
        folder.mkdir()
        (folder / "model.safetensors").touch()
    assert not export.is_exported(half)
    moved: list[str] = []
    rename = type(epath.Path(tmp_path)).rename
    monkeypatch.setattr(
        type(epath.Path(tmp_path)), "rename", lambda path, to: (moved.append(path.name), rename(path, to))[1]
    )
    write(half, config, params)
    assert export.is_exported(half)
    assert moved[-1] == "config.json"
    assert (half / "model.safetensors").stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "source"]


def test_refusals(tmp_path: Path) -> None:
    config, params = random_params(tmp_path, 0)
    with pytest.raises(UsageError, match="already there"):
        write(tmp_path / "source", config, params)
    small = model_config_from_huggingface(random_config(0))
    with pytest.raises(
        UsageError, match=r"model.vocab_size 61 is too small for the \d+ tokens of tokenizer miniature"
    ):
        write(tmp_path / "export", small, params)
    assert not (tmp_path / "export").exists()
