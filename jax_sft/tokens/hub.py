"""Models by their id on the Hugging Face hub: the files a run needs, from the hub or its local cache."""

import re

from etils import epath

from jax_sft.errors import JaxSftError, UsageError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "chat_template.jinja")
CONFIG = ("config.json",)


def local_folder(spec: str, patterns: tuple[str, ...]) -> epath.Path:
    """The folder `spec` is, or for a hub id such as `Qwen/Qwen3-8B-Base` the folder it is downloaded to.

    An id may name a branch, tag or commit: `Qwen/Qwen3-8B-Base@main`. A folder of that name comes first.
    Nothing but files that match `patterns` is fetched: no pickled weights, no code.

    Raises:
        UsageError: the hub has no such model, or it is not for everyone.
        JaxSftError: the hub cannot be reached, and the files are not in the cache.
    """
    folder = epath.Path(spec)
    if "://" in spec or not _HUB_ID.fullmatch(spec) or folder.exists():
        return folder
    from huggingface_hub import errors, snapshot_download

    name, _, revision = spec.partition("@")
    try:
        found = snapshot_download(name, revision=revision or None, allow_patterns=list(patterns))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError):
        raise UsageError(
            f"{spec}: neither a folder here nor a model on the hub that you may read; "
            "check the spelling, or log in with `hf auth login`"
        ) from None
    except (errors.HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0][:160]
        raise JaxSftError(
            f"{spec}: no such folder here, and the hub gave no answer ({type(error).__name__}: {reason}); "
            "give a folder with the model's files"
        ) from None
    return epath.Path(found)
