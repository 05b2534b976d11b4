"""Importing a sharded checkpoint: peak host memory, time, and bytes read, beside transformers' loading of it.

    python benchmarks/import_memory.py FOLDER [--beside PYTHON_WITH_TRANSFORMERS]

Makes a synthetic Llama of about 3 GB (bf16, shards of 1 GB) in FOLDER unless it is there, then loads it in
fresh processes: onto 8 forced CPU devices as float32, by transformers as float32, and into 2 processes of 4
devices each. Needs about 8 GB of memory and 3 GB of disk.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32_000,
    "hidden_size": 2048,
    "num_hidden_layers": 20,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "intermediate_size": 8192,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
GIGABYTE = 1e9
KEPT: list[Any] = []
"""What was loaded, so that it is still held when memory is read."""


def make_checkpoint(folder: Path) -> None:
    """Write CONFIG and weights that repeat one block of noise."""
    import ml_dtypes
    import numpy as np

    from jax_sft.models.families import family_of_huggingface, model_config_from_huggingface
    from jax_sft.models.weights.safetensors import write_shards

    config = model_config_from_huggingface(CONFIG)
    table = family_of_huggingface(CONFIG).table(config)
    shapes = {name: weight.tensor_shape(config) for weight in table for name in weight.names(config)}
    noise = (0.02 * np.random.default_rng(0).standard_normal(1 << 20)).astype(ml_dtypes.bfloat16)
    folder.mkdir(parents=True)
    write_shards(folder, shapes, lambda name: np.resize(noise, shapes[name]), shard_bytes=10**9)
    (folder / "config.json").write_text(json.dumps(CONFIG))


def forget_cached_files(folder: Path) -> None:
    """Ask the kernel to drop the files' pages, so that reading them is reading the disk."""
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def resident(field: str) -> int:
    """Bytes of VmRSS or VmHWM (the peak) of this process, pages of mapped files included."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.split("\n") if line.startswith(f"{field}:")))


def disk_bytes() -> int:
    """Bytes this process has caused to be read from storage."""
    return int(
        dict(line.split(": ") for line in Path("/proc/self/io").read_text().split("\n")[:-1])["read_bytes"]
    )


def measure(load: Any, folder: Path) -> dict[str, float]:
    """Peak memory above what was there before, seconds, and bytes from storage, of one call."""
    forget_cached_files(folder)
    Path("/proc/self/clear_refs").write_text("5")
    before, read, start = resident("VmRSS"), disk_bytes(), time.perf_counter()
    kept = load(str(folder))
    return {
        "seconds": time.perf_counter() - start,
        "peak": (resident("VmHWM") - before) / GIGABYTE,
        "held": kept / GIGABYTE,
        "storage": (disk_bytes() - read) / GIGABYTE,
    }


def load_ours(folder: str) -> int:
    """Import onto all devices, sharded; bytes this process holds."""
    import flax.linen as nn
    import jax

    from jax_sft.config import ParallelismConfig
    from jax_sft.models.decoder import init_params
    from jax_sft.models.weights.read import load_pretrained, pretrained_config
    from jax_sft.sharding import make_mesh, place_abstract

    config = pretrained_config(folder)
    boxed = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    target = place_abstract(boxed, make_mesh(ParallelismConfig(fsdp=jax.device_count())))
    params = load_pretrained(folder, nn.unbox(target))[1]
    leaves = jax.tree.leaves(params)
    KEPT.append(params)
    return sum(shard.data.nbytes for leaf in leaves for shard in leaf.addressable_shards)


def load_theirs(folder: str) -> int:
    """The same files by transformers, as float32."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    KEPT.append(model)
    return sum(parameter.nbytes for parameter in model.parameters())


def worker(kind: str, folder: Path) -> None:
    """One measurement, printed as JSON."""
    if kind == "theirs":
        import torch
        import transformers

        del torch, transformers
        print(json.dumps(measure(load_theirs, folder)))
        return
    import jax

    from jax_sft.machine import join_processes
    from jax_sft.models.families import Weight

    join_processes()
    jax.block_until_ready(jax.device_put(0.0))
    asked = 0
    whole = Weight.from_tensor

    def counted(*args: Any) -> Any:
        nonlocal asked
        block = whole(*args)
        asked += block.nbytes
        return block

    with mock.patch.object(Weight, "from_tensor", counted):
        result = measure(load_ours, folder)
    print(json.dumps(result | {"asked": asked / GIGABYTE}))


def start(python: str, kind: str, folder: Path, devices: int, job: tuple[int, int, int]) -> subprocess.Popen:
    """A worker in a process of its own; `job` is processes, index, port."""
    processes, index, port = job
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    if processes > 1:
        environment |= {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(processes),
            "JAX_PROCESS_ID": str(index),
        }
    command = [python, __file__, str(folder), "--worker", kind]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def report(label: str, process: subprocess.Popen) -> None:
    """Wait for a worker and print its numbers on a line."""
    output, _ = process.communicate()
    if process.returncode:
        sys.exit(f"{label}: failed")
    found = json.loads(output.splitlines()[-1])
    asked = f", asked for {found['asked']:.2f} GB of the files" if "asked" in found else ""
    print(
        f"{label}: {found['seconds']:.1f} s, holds {found['held']:.2f} GB, peak {found['peak']:.2f} GB "
        f"({found['peak'] / found['held']:.2f} x){asked}, {found['storage']:.2f} GB from storage"
    )


def main() -> None:
    """Make the checkpoint, then measure each way to load it, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--beside", default="", help="a Python that has transformers")
    parser.add_argument("--worker", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.folder)
        return
    folder = arguments.folder
    if not folder.exists():
        make_checkpoint(folder)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / GIGABYTE
    print(f"checkpoint: {size:.2f} GB in {len(list(folder.glob('*.safetensors')))} shards")
    report("8 devices, float32", start(sys.executable, "ours", folder, 8, (1, 0, 0)))
    if arguments.beside:
        report("transformers, float32", start(arguments.beside, "theirs", folder, 1, (1, 0, 0)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pair = [start(sys.executable, "ours", folder, 4, (2, index, port)) for index in range(2)]
    for index, process in enumerate(pair):
        report(f"process {index} of 2, 4 devices each", process)


if __name__ == "__main__":
    main()
