"""Seeded conversations for tests of templates and tokenizers: turns, unicode, code, odd white space."""

import random

_PIECES = (
    "What is 17 * 23?",
    "Écris une phrase sur l'été à Zürich.",
    "日本語で答えてください。",
    "🎉🇫🇷 emoji 👩‍👩‍👧 family",
    "def f(x):\n    return {'a': [x, 2 ** 10]}\n",
    "line one\r\nline two\ttabbed",
    "   leading and trailing   ",
    'He said "it\'s <b>bold</b> & done".',
    "$\\frac{1}{2} + \\sqrt{x}$ = ?",
    '{"name": "search", "arguments": {"query": "weather in 東京", "limit": 3}}',
    "مرحبا بالعالم",
    "1234567890 3.14159 1e-5 0x1F",
    "naïve café — “quotes” … ½ × ÷ −",
    "",
    "\n\nparagraphs\n\n\nand gaps\n",
    "a\u0301 combining, \u200b zero width, \ufeff mark",
    "<think>not yet</think> then more",
    "{% if x %}{{ jinja }}{% endif %}",
)


def conversations(count: int, seed: int = 0) -> list[list[dict[str, str]]]:
    """`count` conversations that end with a user's turn; some open with a system turn, some empty."""
    rng = random.Random(seed)

    def text() -> str:
        return rng.choice([" ", "\n", ""]).join(rng.choices(_PIECES, k=rng.choice([1, 1, 2, 4])))

    made = []
    for _ in range(count):
        turns = []
        if rng.random() < 0.4:
            turns.append({"role": "system", "content": rng.choice(["", "Be brief.", text()])})
        for _ in range(rng.choice([0, 0, 1, 2])):
            turns.append({"role": "user", "content": text()})
            turns.append({"role": "assistant", "content": text()})
        made.append([*turns, {"role": "user", "content": text()}])
    return made


def responses(count: int, seed: int = 1) -> list[str]:
    """`count` responses, many of them with a trace first."""
    rng = random.Random(seed)
    return [
        rng.choice(["", "<think>\n" + rng.choice(_PIECES) + "\n</think>\n\n"]) + rng.choice(_PIECES) + "."
        for _ in range(count)
    ]
