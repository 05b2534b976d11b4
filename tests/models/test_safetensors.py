"""Reading and writing safetensors, against the library of that name and on damaged files."""

import json
import struct
from pathlib import Path

import flax.linen as nn
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from jax.sharding import NamedSharding, PartitionSpec

from jax_sft.config import ParallelismConfig
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.models.decoder import init_params
from jax_sft.models.weights.read import load_pretrained
from jax_sft.models.weights.safetensors import INDEX, SafetensorsFolder, write_shards
from jax_sft.sharding import make_mesh, place_abstract
from tests.random_models import random_config, random_tensors, write_model

pytestmark = pytest.mark.short

TENSORS = {
    "b": np.arange(12, dtype=np.float32).reshape(3, 4),
    "a": np.linspace(-1, 1, 5, dtype=np.float32),
    "scalar": np.array(3.5, np.float32),
}


def read_all(folder: Path) -> dict[str, np.ndarray]:
    source = SafetensorsFolder(folder)
    return {name: source.read(name) for name in source.shapes()}


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_reads_what_the_library_wrote(tmp_path: Path, dtype: type) -> None:
    wanted = {name: tensor.astype(dtype) for name, tensor in TENSORS.items()}
    safetensors.numpy.save_file(wanted, tmp_path / "model.safetensors")
    found = read_all(tmp_path)
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        assert tensor.dtype == dtype
        np.testing.assert_array_equal(tensor, wanted[name])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_library_reads_what_was_written(tmp_path: Path, dtype: type) -> None:
    write_shards(tmp_path, {name: t.shape for name, t in TENSORS.items()}, TENSORS.__getitem__, dtype)
    found = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(found[name], tensor.astype(dtype))


def test_shards_hold_at_most_their_bytes_and_the_index_finds_all(tmp_path: Path) -> None:
    tensors = {f"t{i}": np.full((10, i + 1), i, np.float32) for i in range(6)}
    write_shards(tmp_path, {n: t.shape for n, t in tensors.items()}, tensors.__getitem__, np.float32, 200)
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    shards = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert shards == sorted(set(index["weight_map"].values()))
    for shard in shards:
        held = safetensors.numpy.load_file(tmp_path / shard)
        assert len(held) == 1 or sum(tensor.nbytes for tensor in held.values()) <= 200
    for name, tensor in read_all(tmp_path).items():
        np.testing.assert_array_equal(tensor, tensors[name])


def test_a_sharded_import_is_the_host_import(tmp_path: Path) -> None:
    raw = {
        **random_config(2),
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "tie_word_embeddings": False,
    }
    write_model(tmp_path, raw)
    _, params = load_pretrained(str(tmp_path))
    mesh = make_mesh(ParallelismConfig(fsdp=4, tensor=2))

    def target(path: tuple[jax.tree_util.DictKey, ...], leaf: np.ndarray) -> jax.ShapeDtypeStruct:
        axes = ("fsdp", "tensor") if leaf.ndim == 2 else (None, "fsdp", "tensor")
        spec = [
            axis if axis and size % mesh.shape[axis] == 0 else None
            for axis, size in zip(axes, leaf.shape, strict=False)
        ]
        return jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, PartitionSpec(*spec))
        )

    wanted = jax.tree_util.tree_map_with_path(target, params)
    _, sharded = load_pretrained(str(tmp_path), wanted)
    for host, device, leaf in zip(*map(jax.tree.leaves, (params, sharded, wanted)), strict=True):
        assert device.sharding == leaf.sharding
        np.testing.assert_array_equal(host, device)


@pytest.mark.parametrize("number", [2, 3])
def test_any_mesh_loads_the_same_weights(tmp_path: Path, number: int) -> None:
    """A vocabulary that the mesh does not divide stays whole; a fused tensor is cut between heads."""
    raw = {
        **random_config(number),
        "vocab_size": 61,
        "hidden_size": 32,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 4,
        "intermediate_size": 48,
        "tie_word_embeddings": False,
    }
    config, params = load_pretrained(str(write_model(tmp_path, raw)))
    boxed = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    for parallelism in (ParallelismConfig(fsdp=4, tensor=2), ParallelismConfig(replica=2, fsdp=4)):
        wanted = nn.unbox(place_abstract(boxed, make_mesh(parallelism)))
        _, placed = load_pretrained(str(tmp_path), wanted)
        for host, device, leaf in zip(*map(jax.tree.leaves, (params, placed, wanted)), strict=True):
            assert device.sharding == leaf.sharding
            np.testing.assert_array_equal(host, device)


def test_a_half_precision_checkpoint_is_widened_exactly(tmp_path: Path) -> None:
    raw = random_config(0)
    tensors = {name: tensor.astype(np.float16) for name, tensor in random_tensors(raw).items()}
    write_model(tmp_path, raw, tensors)
    _, params = load_pretrained(str(tmp_path))
    scale_LD = params["layers"]["attention_norm"]["scale"]
    assert scale_LD.dtype == np.float32
    np.testing.assert_array_equal(scale_LD[0], tensors["model.layers.0.input_layernorm.weight"])


def test_misfitting_weights_are_listed_by_name(tmp_path: Path) -> None:
    raw = random_config(4)
    tensors = random_tensors(raw)
    tensors["model.norm.bias"] = np.zeros(3, np.float32)
    del tensors["model.embed_tokens.weight"]
    tensors["model.norm.weight"] = np.zeros(3, np.float32)
    write_model(tmp_path, raw, tensors)
    with pytest.raises(JaxSftError) as caught:
        load_pretrained(str(tmp_path))
    message = str(caught.value)
    assert "missing: model.embed_tokens.weight" in message
    assert "unexpected: model.norm.bias" in message
    assert f"model.norm.weight (is [3], config.json says [{raw['hidden_size']}])" in message


def test_a_tied_checkpoint_may_repeat_its_table_as_head(tmp_path: Path) -> None:
    raw = {**random_config(0), "tie_word_embeddings": True}
    tensors = random_tensors(raw)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    _, params = load_pretrained(str(write_model(tmp_path, raw, tensors)))
    assert "head" not in params


def damaged(folder: Path, change: str) -> Path:
    write_model(folder, random_config(0))
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    if change == "data":
        weights.write_bytes(content[:-10])
    elif change == "header":
        weights.write_bytes(content[: length // 2])
    elif change == "empty":
        weights.write_bytes(b"")
    elif change == "text":
        weights.write_bytes(b"<html>404 not found, sorry about that</html>" * 10)
    elif change == "json":
        weights.write_bytes(content[:8] + b"?" * length + content[8 + length :])
    return folder


@pytest.mark.parametrize("change", ["data", "header", "empty", "text", "json"])
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, change: str) -> None:
    with pytest.raises(JaxSftError, match=r"model\.safetensors: ") as caught:
        load_pretrained(str(damaged(tmp_path, change)))
    assert "\n" not in str(caught.value)


def test_an_index_that_names_a_missing_shard(tmp_path: Path) -> None:
    tensors = {"a": np.zeros((8, 8), np.float32), "b": np.ones((8, 8), np.float32)}
    write_shards(tmp_path, {n: t.shape for n, t in tensors.items()}, tensors.__getitem__, np.float32, 256)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(JaxSftError, match="model-00002-of-00002"):
        SafetensorsFolder(tmp_path)


def test_a_whole_file_counts_before_an_old_index(tmp_path: Path) -> None:
    old = {"a": np.zeros((8, 8), np.float32), "b": np.zeros((8, 8), np.float32)}
    write_shards(tmp_path, {n: t.shape for n, t in old.items()}, old.__getitem__, np.float32, 256)
    new = {"a": np.ones((4, 4), np.float32)}
    write_shards(tmp_path, {n: t.shape for n, t in new.items()}, new.__getitem__, np.float32)
    folder = SafetensorsFolder(tmp_path)
    assert folder.shapes() == {"a": (4, 4)}
    np.testing.assert_array_equal(folder.read("a"), new["a"])


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "\xff"])
def test_a_damaged_index_is_one_clear_error(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(index.encode("latin-1"))
    with pytest.raises(JaxSftError, match=r"index\.json: (has no weight_map|not JSON)"):
        SafetensorsFolder(tmp_path)


@pytest.mark.parametrize("header", [b"[1]", b'{"a": 1}', b'{"a": {"dtype": "F32", "shape": [1]}}'])
def test_a_header_of_another_form_is_one_clear_error(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(JaxSftError, match=r"model\.safetensors: header .* download the file again"):
        SafetensorsFolder(tmp_path)


def test_pickled_weights_are_never_opened(tmp_path: Path) -> None:
    write_model(tmp_path, random_config(0))
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UsageError, match="pickled"):
        load_pretrained(str(tmp_path))


def test_other_types_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load_pretrained(str(tmp_path / "nowhere"))
    safetensors.numpy.save_file({"a": np.zeros(3, np.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match="a has type I8"):
        SafetensorsFolder(tmp_path)
