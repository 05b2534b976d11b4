"""Options of a chat template (`enable_thinking False`): read as it uses them, and written into it."""

import difflib
import json
from collections.abc import Collection, Iterator, Mapping

from jinja2 import nodes

from jax_sft.config import Option
from jax_sft.errors import UsageError
from jax_sft.options import truth

_ASKED = ("defined", "undefined", "none")
"""Tests that every kind of value is put to."""
_TRUTHS = ("true", "false", "boolean", "sameas")


def fitted_options(options: Mapping[str, Option], template: nodes.Template, name: str) -> dict[str, Option]:
    """The options as the template `name` reads them: truth values where it asks whether they are true.

    There `no`, `Off`, 0 are False and `yes`, `on`, 1 True; elsewhere `true` and `false` are words for them.
    UsageError where a truth value is wanted and this is none, and for a variable that is never read.
    """
    read = {node.name for node in template.find_all(nodes.Name) if node.ctx == "load"}
    fitted: dict[str, Option] = {}
    for option, value in options.items():
        if option not in read:
            close = difflib.get_close_matches(option, read, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UsageError(f"tokens.template-options: chat template {name} has no {option!r}{hint}")
        uses = set(_uses(template, option))
        wanted = "truth" in uses or uses == {"condition"}
        said = truth(value)
        if wanted and said is None:
            raise UsageError(
                f"tokens.template-options {option}: chat template {name} asks whether it is true; "
                f"write True or False, not {value!r}"
            )
        spelt = isinstance(value, str) and value.strip().lower() in ("true", "false")
        fitted[option] = value if said is None or not (wanted or spelt) else said
    return fitted


def with_options(source: str, options: Mapping[str, Option], fixed: Collection[str]) -> str:
    """A template that renders, without being given these options, what `source` renders with them.

    Whoever renders it may still give others, except for those that every tokenizer gives its template
    (`fixed`, such as bos_token).
    """
    lines = ""
    for name, value in options.items():
        # JSON's escapes are those of jinja's texts; its names of the truth values are jinja's as well.
        line = f"{{% set {name} = {json.dumps(value, ensure_ascii=False)} %}}"
        lines += line if name in fixed else f"{{% if {name} is not defined %}}{line}{{% endif %}}"
    # The line break after a block is not written: with it the source begins a line, as it did.
    return f"{lines}\n{source}" if lines else source


def _uses(node: nodes.Node, name: str, condition: bool = False) -> Iterator[str]:
    """How a template uses a variable: as a `condition`, surely as a `truth` value, or its `value`."""
    if isinstance(node, nodes.Name):
        if node.name == name and node.ctx == "load":
            yield "condition" if condition else "value"
    elif isinstance(node, nodes.If | nodes.CondExpr):
        yield from _uses(node.test, name, True)
        if isinstance(node, nodes.CondExpr):
            yield from _beside([node.expr1, node.expr2], name, condition)
        else:
            for inner in (*node.body, *node.elif_, *node.else_):
                yield from _uses(inner, name)
    elif isinstance(node, nodes.Not):
        yield from _uses(node.node, name, True)
    elif isinstance(node, nodes.And | nodes.Or):
        yield from _uses(node.left, name, condition)
        yield from _uses(node.right, name, condition)
    elif isinstance(node, nodes.Test) and _is(node.node, name):
        if node.name not in _ASKED:
            yield "truth" if node.name in _TRUTHS else "value"
    elif isinstance(node, nodes.Filter) and node.name in ("default", "d"):
        yield from _beside([node.node, *node.args], name, condition)
    elif isinstance(node, nodes.Compare):
        yield from _beside([node.expr, *(operand.expr for operand in node.ops)], name, False)
    else:
        for child in node.iter_child_nodes():
            yield from _uses(child, name)


def _beside(values: list[nodes.Expr | None], name: str, condition: bool) -> Iterator[str]:
    """Uses in values of one kind: one of which is True or False makes truth values of them all."""
    found = [value for value in values if value is not None]
    truths = any(isinstance(value, nodes.Const) and isinstance(value.value, bool) for value in found)
    for value in found:
        if _is(value, name) and truths:
            yield "truth"
        else:
            yield from _uses(value, name, condition)


def _is(node: nodes.Node | None, name: str) -> bool:
    return isinstance(node, nodes.Name) and node.name == name and node.ctx == "load"
