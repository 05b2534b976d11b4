"""The program in a response: the fenced block that answers, or code that goes on where the prompt ended."""

import re
from collections.abc import Collection

# A fence may be indented, and the last one may lack its end: a model that stops there has said all.
_FENCED = re.compile(
    r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n]*\n(.*?)"
    r"(?:^[ \t]*\1[`~]*[ \t]*(?:<\|\w+\|>|</s>)?[ \t]*$|\Z)",
    re.DOTALL | re.MULTILINE,
)
_PYTHON = {"", "python", "python3", "py", "python2"}
# Where a base model's continuation of a function goes on to something else: the stop words of HumanEval.
_NEXT = re.compile(r"\n(?=class |def |#|@|if |print|```)")


def fenced_blocks(text: str) -> list[str]:
    """What stands between fences, in order: the blocks of Python, or all where none is said to be Python."""
    blocks = [(match[2].lower(), match[3]) for match in _FENCED.finditer(text)]
    return [code for word, code in blocks if word in _PYTHON] or [code for _, code in blocks]


def answering_block(text: str, names: Collection[str] = ()) -> str | None:
    """The last fenced block that defines one of the functions, else the last one; None when there is none."""
    blocks = [block for block in fenced_blocks(text) if block.strip()]
    defining = [block for block in blocks if any(defines(block, name) for name in names)]
    found = defining or blocks
    return found[-1] if found else None


def defines(code: str, name: str) -> bool:
    """Whether a function, class or variable of that name is defined at the outermost level."""
    word = re.escape(name)
    return bool(re.search(rf"^(?:(?:async )?def {word}\b|class {word}\b|{word}\s*=[^=])", code, re.MULTILINE))


def continuation(text: str) -> str:
    """What goes on with the body of a function, up to where something else begins."""
    end = _NEXT.search(text)
    return text[: end.start()] if end else text
