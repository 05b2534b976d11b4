"""SentencePiece `tokenizer.model` files of the BPE kind, read as data and turned into a `tokenizers` BPE.

For models that ship no tokenizer.json but code of their own (InternLM2.5), which is never run. The file is a
protocol buffer, https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto, of which
the fields below are read.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import tokenizers
from etils import epath
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
from tokenizers import AddedToken, decoders, models, normalizers

from jax_sft.errors import UsageError

FILE = "tokenizer.model"
_BPE = 2
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
_SPACE = "▁"
# Message: (field, number, type); types are those of FieldDescriptorProto.
_STRING, _FLOAT, _INT, _BOOL, _BYTES, _MESSAGE = 9, 2, 5, 8, 12, 11
_SCHEMA: dict[str, tuple[tuple[str, int, int, Any], ...]] = {
    "Piece": (("piece", 1, _STRING, None), ("score", 2, _FLOAT, None), ("kind", 3, _INT, "1")),
    "Trainer": (("model_type", 3, _INT, "1"), ("byte_fallback", 35, _BOOL, None)),
    "Normalizer": (
        ("charsmap", 2, _BYTES, None),
        ("add_dummy_prefix", 3, _BOOL, "true"),
        ("remove_extra_whitespaces", 4, _BOOL, "true"),
        ("escape_whitespaces", 5, _BOOL, "true"),
    ),
    "Model": (
        ("pieces", 1, _MESSAGE, "Piece"),
        ("trainer", 2, _MESSAGE, "Trainer"),
        ("normalizer", 3, _MESSAGE, "Normalizer"),
    ),
}


def read_sentencepiece(path: epath.PathLike, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """The tokenizer of a `tokenizer.model`, which gives the ids that the sentencepiece library gives.

    Args:
        path: the file.
        settings: content of tokenizer_config.json. Its `added_tokens_decoder` renames pieces: InternLM2.5
            makes `<|im_end|>` of an unused one.

    Raises:
        UsageError: a file of another format, or a model that is not BPE with bytes for unknown characters.
    """
    model = _parse(epath.Path(path))
    if model.trainer.model_type != _BPE or not model.trainer.byte_fallback:
        raise UsageError(f"{path}: only BPE models with byte_fallback are read; convert it to tokenizer.json")
    rules = model.normalizer
    if rules.charsmap or rules.remove_extra_whitespaces or not rules.escape_whitespaces:
        raise UsageError(f"{path}: its normalizer rewrites the text; convert it to tokenizer.json")
    added = _added_tokens(settings)
    renamed = [added[i].content if i in added else piece.piece for i, piece in enumerate(model.pieces)]
    vocabulary = {text: number for number, text in enumerate(renamed)}
    unknown = [text for text, piece in zip(renamed, model.pieces, strict=True) if piece.kind == _UNKNOWN]
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocabulary,
            _merges(renamed, [piece.score for piece in model.pieces]),
            unk_token=unknown[0] if unknown else None,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    backend.normalizer = _normalizer(rules)
    strip = [decoders.Strip(content=" ", left=1)] if rules.add_dummy_prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    whole = {
        number: AddedToken(renamed[number], special=piece.kind != _USER_DEFINED, normalized=False)
        for number, piece in enumerate(model.pieces)
        if piece.kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)
    }
    backend.add_tokens([token for _, token in sorted({**whole, **added}.items())])
    return backend


def _merges(texts: list[str], scores: list[float]) -> list[tuple[str, str]]:
    """The merge rules a vocabulary implies: every way to make a piece of two, best score first."""
    ids = {text: number for number, text in enumerate(texts)}
    found = []
    for text, score in zip(texts, scores, strict=True):
        pairs = [(text[:i], text[i:]) for i in range(1, len(text)) if text[:i] in ids and text[i:] in ids]
        pairs.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        found += [(score, pair) for pair in pairs]
    found.sort(key=lambda entry: (entry[0], len(entry[1][0]), len(entry[1][1])), reverse=True)
    return [pair for _, pair in found]


def _normalizer(rules: Any) -> normalizers.Normalizer:
    prefix = [normalizers.Prepend(_SPACE)] if rules.add_dummy_prefix else []
    return normalizers.Sequence([*prefix, normalizers.Replace(" ", _SPACE)])


def _added_tokens(settings: Mapping[str, Any]) -> dict[int, AddedToken]:
    return {
        int(number): AddedToken(
            token["content"], special=token.get("special", True), normalized=token.get("normalized", False)
        )
        for number, token in settings.get("added_tokens_decoder", {}).items()
    }


def _parse(path: epath.Path) -> Any:
    model = _model_class()()
    try:
        model.ParseFromString(path.read_bytes())
    except message.DecodeError:
        raise UsageError(f"{path}: not a SentencePiece model, or truncated; download it again") from None
    if not model.pieces:
        raise UsageError(f"{path}: a SentencePiece model without pieces; download it again")
    return model


@lru_cache(maxsize=1)
def _model_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="jax_sft_sentencepiece.proto", package="jax_sft")
    for name, fields in _SCHEMA.items():
        kind = file.message_type.add(name=name)
        for label, number, type_, extra in fields:
            field = kind.field.add(name=label, number=number, type=type_, label=1)
            if type_ == _MESSAGE:
                field.type_name = f".jax_sft.{extra}"
                field.label = 3 if label == "pieces" else 1
            elif extra is not None:
                field.default_value = extra
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("jax_sft.Model"))
