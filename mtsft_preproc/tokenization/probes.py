"""Texts on which encoders part if they ever do."""

from __future__ import annotations

import random
import sys
import unicodedata
from collections.abc import Iterator, Sequence

from mtsft_preproc.tokenization.spec import AddedToken

__all__ = ["probe_texts"]

#: Seed of all that is drawn: the same texts for the same tokenizer, always.
_SEED = 20
#: Of each 64 code points in a row, these are taken.
_TAKEN = (0, 1, 7, 21, 42, 63)
#: Where a list is longer, so many are taken, evenly.
_MOST = 250
_SPACES = (
    "\t\n\v\f\r \x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2003\u2007\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
_INVISIBLE = (
    "\0\x01\x08\x1b\x7f\x80\xad\u034f\u061c\u180e\u200b\u200c\u200d\u200e\u2060\u2066\ufe0f\ufeff\ufffd"
)
_CONTRACTIONS = [
    "'s", "'S", "'t", "'T", "'re", "'RE", "'Re", "'ve", "'VE", "'m", "'M", "'ll", "'LL", "'Ll", "'d", "'D",
    "'ſ", "'ſs", "’s", "’LL", "'x", "''s", "'sS",
]  # fmt: skip
#: A capital, a small letter, a mark, a digit, ...: what the patterns of tokenizers tell apart.
_CLASSES = [
    *"Aaz\u01c5\u02b0\u4f60\u0627\u0301\u093e\u20dd1\u0661\u2167\u00b2",
    *" \n\r\t\u00a0\u3000'-_.!/\u2014\u3002\u20ac+^\u00a6<",
    *"\u00df\u0130\u0131\u017f\u1e9e\u200d\u2581\u0120\u010a",
    "\U0001f469", "\U0001f3fd", "\ufe0f", "'s", "  ", "\r\n",
]  # fmt: skip
_WRITTEN = [
    ("The quick brown fox jumps over the lazy dog; it's HERE, isn't it? I'LL see what WE'VE got."),
    ("camelCase, PascalCase, snake_case, SCREAMING_CASE, kebab-case, HTTPServer2XMLParser, iPhone15ProMax"),
    (
        'def f(x: int = 0x1F) -> str:\n    """Doc."""\n\treturn f\'{x!r:>{10}}\'  # done\n\n\nif '
        "__name__ == '__main__':\n"
    ),
    "for (int i = 0; i < n; ++i) {\r\n\ta[i] += b[i]->c * 3.14159e-10f; // 中文\r\n}\r\n\r\n",
    ('<div class="a b">&nbsp;&#x27;</div><!-- x --><|im_start|>user\n<|im_end|></s><s>[INST] <<SYS>>\n'),
    (
        "https://example.org/a/b_c-d?e=f&g=%20h#i mailto:a.b+c@d.example.com 127.0.0.1:8080 "
        "C:\\a\\b ~/x/y.tar.gz"
    ),
    '{"a": [1, 2.50, -3e+7, null, true], "b": {"c": "\\u4f60\\n"}}\n{"a":1}',
    (
        "| a | b |\n| --- | ---: |\n| **x** | `y` |\n\n* one\n  * two\n    1. three\n> quote\n---\n# "
        "Title #\n"
    ),
    "$\\int_0^\\infty e^{-x^2}\\,dx = \\frac{\\sqrt{\\pi}}{2}$ ∀x∈\u211d: x\xb2≥0 ⇒ ¬(x≠x)",
    "你好\uff0c世界\uff01这是一个测试。价格是\uffe5123.45元\uff08含税\uff09。GPT-4模型——“引号”《书》",
    (
        "繁體中文\uff1a臺灣、香港。こんにちは、世界\uff01カタカナと漢字。"
        "\uff76\uff9e\uff97\uff7d \uff21\uff22\uff23\uff11\uff12"
        "\uff13"
    ),
    "안녕하세요 세계! 한글 각 각 가 각",
    "Привет, мир! Йо\u0301д и\u0306 Ελληνικά ς ᾁ გამარჯობა Բար\u0587",
    (
        "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645، \u0627\u0644\u0633"
        "\u0651\u064e\u0644\u0627\u0645\u064f \u0663\u0662\u0661 ۱۲۳ \ufdfa \ufe8d \u05e9\u05b8\u05c1\u05dc"
        "\u05d5\u05b9\u05dd \u05e2\u05d5\u05dc\u05dd \u06af\u0686\u067e\u0698"
    ),
    (
        "नमस\u094dत\u0947 द\u0941न\u093fय\u093e क\u094dष \u0958 क\u093c १२३ ব\u09be\u0982ল\u09be "
        "\u09df தம\u0bbfழ\u0bcd \u0bca త\u0c46ల\u0c41గ\u0c41 മലയ\u0d3eള\u0d02"
    ),
    (
        "สว\u0e31สด\u0e35ชาวโลก ก\u0e33 ๑๒๓ ສະບາຍດ\u0eb5 ខ\u17d2ម\u17c2រ မ\u103cန\u103aမ\u102c "
        "བ\u0f7cད་ས\u0f90ད་"
    ),
    (
        "Tiếng Việt: Tru\u031bơ\u0300ng đa\u0323i ho\u0323c ứ ứ ư\u0301 u\u031b\u0301 İstanbul "
        "ışık STRASSE straße ẞ \ufb01nal \u017ftra\u017fse 'S '\u017f"
    ),
    (
        "e\u0301 é A\u030a Å \u212b \u2126 Ω q\u0323\u0307 q\u0307\u0323 \u0344 \u0308\u0301 "
        "\u1e9b\u0323 ≠ =\u0338 \u0f73 \u2adc \ufb1d \U0001d15e 𑂚 \u0340 \u0374 \u2329"
    ),
    (
        "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f3f3\ufe0f\u200d\U0001f308 "
        "\U0001f44d\U0001f3fd\U0001f44d \U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7 1\ufe0f\u20e3 "
        "☺\ufe0f☺ ❤\ufe0f\u200d\U0001f525 :-) ^_^ \xaf\\_(ツ)_/\xaf"
    ),
    (
        "\U00020000\U0002a6d6一龥㐀\U0002b740\U00030000 龘龘 㐂䶵 ⿰亻尔 \ufa0c \ufa30 \U0002f800 ㄅㄆㄇ "
        "\u3220\u3231\u33a5"
    ),
    (
        "\u24d0\u2460\u2167\u216b\xbd\u2150\xb2\u2084௰〇十百\uff11\U0001d7ce\U0001d7ff᧚౦၀ 1\xbd "
        "2\xb2 x\u2082 10°C 5′ 6\u2033 1,234,567.89 1_000 0b1010 12:34:56 2024-02-29T23:59:60Z"
    ),
]


def probe_texts(
    added: Sequence[AddedToken], vocabulary: Sequence[str], unmerged: Sequence[str] = ()
) -> list[str]:
    """Return the texts with which an encoder is compared with the reference.

    Args:
        added: The tokenizer's added tokens: each alone and in texts, with and without spaces around it.
        vocabulary: Texts that tokens stand for; strung together, as they come and mixed.
        unmerged: Texts of tokens that no merge makes; each alone and inside of text.
    """
    rng = random.Random(_SEED)
    return [
        *_WRITTEN,
        *_scripts(),
        *_runs(),
        *_contractions(),
        *_mixtures(rng),
        *_bytes(rng),
        *_around(added),
        *_strung(rng, vocabulary),
        *unmerged,
        *(f"a{text}b {text} {text}" for text in unmerged),
    ]


def _scripts() -> Iterator[str]:
    """Yield letters of all scripts: side by side, apart, and after letters and digits."""
    for plane in range(0, sys.maxunicode, 1 << 12):
        points = (row + taken for row in range(plane, plane + (1 << 12), 64) for taken in _TAKEN)
        letters = [chr(point) for point in points if _is_known(chr(point))]
        if letters:
            yield "".join(letters)
            yield " ".join(letters)
            yield "".join(f"a{letter}1" for letter in letters)


def _is_known(letter: str) -> bool:
    """Return whether a character is in Unicode 3.2.

    Libraries know newer versions each to another: a letter that is none for one of them is no reason to
    encode everything slowly. What texts hold of those is for the check on the run.
    """
    return unicodedata.ucd_3_2_0.category(letter) not in ("Cn", "Cs", "Co")


def _runs() -> Iterator[str]:
    """Yield runs of digits, letters and spaces of all lengths and kinds."""
    yield from ("", " ", "\n", "a", "\u4f60", "\u0301")
    digits = "12345678901234567890"
    for length in range(1, 21):
        yield f"{digits[:length]} x{digits[:length]}y {'0' * length},{digits[:length]}"
        yield "a{0}b{1}c{0}\n{2}d{3}".format(*(space * length for space in " \n\t\r"))
        yield f"{'=' * length}{'-' * length} {'!' * length}\n{'a' * length}{'A' * length}{'哈' * length}"
    for space in _SPACES:
        yield f"a{space}b {space}c{space} d{space}{space}e\n{space}f{space}\n1{space}2.{space}.{space}"
    for letter in _INVISIBLE:
        yield f"a{letter}b {letter}c{letter} d{letter}{letter}e\n{letter}f{letter}\n1{letter}2{letter}"
    for letter in (*"a 0.=\n\t", "\u554a", "\u0301", "\U0001f602", "ab", "\r\n", "\u4f60\u597d", "e\u0301"):
        yield letter * 700


def _contractions() -> Iterator[str]:
    for end in _CONTRACTIONS:
        yield f"It{end} IT{end} it {end} {end}x 1{end} \u4f60{end}a X{end}{end}"


def _mixtures(rng: random.Random) -> Iterator[str]:
    """Yield each class of character behind each, and classes drawn at random."""
    for left in _CLASSES:
        yield "".join(f"{left}{right}" for right in _CLASSES)
        yield " ".join(f"{left}{right}{right}{left}" for right in _CLASSES)
    for _ in range(400):
        yield "".join(rng.choices(_CLASSES, k=rng.randrange(1, 40)))


def _bytes(rng: random.Random) -> Iterator[str]:
    """Yield bytes drawn at random, as text."""
    for number in range(120):
        drawn = rng.randbytes(rng.randrange(1, 120))
        yield drawn.decode("latin-1")
        yield drawn.decode("utf-8", "replace")
        if number % 2:
            yield drawn.decode("utf-16-le", "replace")


def _around(added: Sequence[AddedToken]) -> Iterator[str]:
    """Yield the added tokens, each alone; and one after another, apart and together."""
    texts = [token.text for token in added if token.text]
    yield from texts
    for text in _spread(texts):
        yield f"a{text}b {text} c\n{text}\n {text}{text}你{text}好  {text}  1{text}2.{text}'s{text}\t"
        yield f" {text[:-1]} {text[1:]} {text.upper()} {text.lower()} {text.title()} {text}\u0301 {text}"
    for at in range(0, len(texts), 20):
        group = texts[at : at + 20]
        yield "".join(group)
        yield " ".join(group)
        yield "".join(f"x{text} y\n" for text in group)


def _strung(rng: random.Random, vocabulary: Sequence[str]) -> Iterator[str]:
    """Yield texts of tokens: in their order, and mixed."""
    texts = [text for text in vocabulary if text]
    if not texts:
        return
    for at in range(0, len(texts), 16):
        yield "".join(texts[at : at + 16])
    for _ in range(_MOST):
        yield "".join(rng.choices(texts, k=16))
        yield " ".join(rng.choices(texts, k=8))


def _spread(texts: list[str]) -> list[str]:
    """Return the first and the last of ``texts``, and evenly from between, :data:`_MOST` at most."""
    if len(texts) <= _MOST:
        return texts
    return [texts[number * (len(texts) - 1) // (_MOST - 1)] for number in range(_MOST)]
