"""Where each tokenizer comes from."""

import tokenizers
from etils import epath

from jax_sft import files
from jax_sft.config import TokensConfig
from jax_sft.errors import UsageError
from jax_sft.hub import TOKENIZER, local_folder
from jax_sft.tokens import sentencepiece
from jax_sft.tokens.smollm2 import smollm2_tokenizer
from jax_sft.tokens.tokenizer import Tokenizer

MINIATURE = epath.Path(__file__).parent / "miniature"
_OF_THEIR_CODE = ("auto_map", "tokenizer_class", "added_tokens_decoder", "sp_model_kwargs")


def load_tokenizer(config: TokensConfig) -> Tokenizer:
    """The tokenizer a study names: `miniature`, `smollm2`, a folder or file with it, or a hub id.

    Raises:
        UsageError: nothing there, or a file that is not a tokenizer.
        JaxSftError: the hub cannot be reached.
    """
    if config.tokenizer == "miniature":
        return read_tokenizer(MINIATURE, name="miniature")
    if config.tokenizer == "smollm2":
        return smollm2_tokenizer()
    return read_tokenizer(local_folder(config.tokenizer, TOKENIZER), name=config.tokenizer)


def read_tokenizer(path: epath.PathLike, name: str = "") -> Tokenizer:
    """Read tokenizer.json, or else tokenizer.model, and what lies beside it.

    That is tokenizer_config.json and chat_template.jinja, when they exist.
    """
    source = epath.Path(path)
    if source.is_dir():
        found = [source / file for file in ("tokenizer.json", sentencepiece.FILE) if (source / file).exists()]
        source = found[0] if found else source / "tokenizer.json"
    if not source.exists():
        raise UsageError(
            f"tokenizer {path}: no file {source}; give `miniature`, `smollm2` or a folder with tokenizer.json"
        )
    folder = source.parent
    settings_file, template_file = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    settings = files.read_json(settings_file) if settings_file.exists() else {}
    if template_file.exists():
        settings["chat_template"] = template_file.read_text()
    if source.suffix == ".model":
        backend = sentencepiece.read_sentencepiece(source, settings)
        # What is written later is a tokenizer.json, which needs neither a class nor code of its own.
        settings = {key: value for key, value in settings.items() if key not in _OF_THEIR_CODE}
    else:
        backend = _read_json(source)
    return Tokenizer(name or str(path), backend, settings)


def _read_json(source: epath.Path) -> tokenizers.Tokenizer:
    try:
        backend = tokenizers.Tokenizer.from_str(source.read_text())
    except Exception as error:  # the library raises bare Exception for a malformed file
        raise UsageError(f"{source}: not a tokenizer.json: {error}") from None
    # Padding and truncation stored in the file belong to whoever saved it.
    backend.no_padding()
    backend.no_truncation()
    return backend
