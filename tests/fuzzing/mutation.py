"""Makes new inputs from old ones: bytes, JSON values and texts, all driven by one seeded generator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any

__all__ = ["JSON_TOKENS", "havoc", "mutated_json", "mutated_value", "text_havoc"]

#: Numbers at which counters and sizes turn over.
_NUMBERS = [0, 1, 2, 7, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1]
_NUMBERS += [2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -1, -(2**31), -(2**63)]
#: Those in each width, little-endian.
_PACKED = [
    (number % (1 << (8 * width))).to_bytes(width, "little") for number in _NUMBERS for width in (1, 2, 4, 8)
]
JSON_TOKENS = [
    *(bytes([byte]) for byte in b'[]{}",:\\ \t\r\n0-.'), b"\\\\", b'\\"', b"\\u0022", b"\\ud83d\\ude00",
    b"\\ud800", b"\\udc00", b"\\u0000", b"\\u", b"\\x", b"{}", b"[]", b'""', b'{"a":', b'"a"',
    b'},{"a":', b'"}, {"', b'],["', b"null", b"true", b"false", b"NaN", b"-Infinity", b"1e400", b"-0",
    b"-0.0", b"1e5", b"01", b"123456789012345678901", b"18446744073709551616", b"9223372036854775807",
    b"0.1e-7", b"1.7976931348623159e308", "é漢😀".encode(), b"\xef\xbb\xbf", b"\xff", b"\xc3",
    b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x00", b"\x0b", b"\x0c", b"\x1f", b"\x7f", b"\xe2\x80\xa8",
    b"\xc2\x85", b"//", b"'", b"\r\n", b"\n\n", b"[" * 40, b'{"a":' * 40, b"\\" * 31, b" " * 33,
]  # fmt: skip
#: Values that stand for others in mutated JSON.
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 0.5, 2**31, 2**63, -(2**63), 2**64, 1e300, float("nan"), float("inf"), "",
    " ",
    "a", "0", "\x00", "\n", "é", "😀", "\ud800", "<|im_end|>", "<think>", "</think>", "{{content}}", "../a",
    "/etc/passwd", "a/b", "{}", "[]", "null", '{"name": "f", "arguments": {}}', '[{"name": "f"}]',
    "x" * 300, [],
    {}, [[]], [None], [""], [{}], {"": ""}, {"a": None}, [["a", "b"]], [["a"]], [1, 2, 3], {"role": "user"},
    {"from": "human", "value": "a"}, {"role": "assistant", "content": None},
]  # fmt: skip


def havoc(rng: Random, data: bytes, other: bytes, tokens: Sequence[bytes]) -> bytes:
    """Return bytes with one to eight random changes.

    Args:
        rng: Decides everything.
        data: What is changed.
        other: An input of which a piece may come in.
        tokens: What the format is made of.
    """
    random = rng.random
    out = bytearray(data)
    for _ in range(1 << int(random() * 4)):
        size = len(out)
        at = int(random() * (size + 1))
        end = min(size, at + 1 + int(random() ** 3 * 40))
        kind = int(random() * 10)
        if kind < 2:
            out[at:at] = tokens[int(random() * len(tokens))]
        elif kind == 2:
            token = tokens[int(random() * len(tokens))]
            out[at : at + len(token)] = token
        elif kind == 3:
            del out[at:end]
        elif kind == 4:
            out[at:at] = out[at:end] * (1 + int(random() ** 4 * 8))
        elif kind == 5:
            start = int(random() * (len(other) + 1))
            out[at : at + int(random() * 20)] = other[start : start + 1 + int(random() ** 2 * 60)]
        elif kind == 6:
            packed = _PACKED[int(random() * len(_PACKED))]
            out[at : at + len(packed)] = packed
        elif kind == 7:
            del out[at : size if random() < 0.2 else end]
        elif size and at < size:
            out[at] = out[at] ^ (1 << int(random() * 8)) if kind == 8 else int(random() * 256)
    return bytes(out)


def text_havoc(rng: Random, data: bytes, other: bytes, tokens: Sequence[bytes]) -> bytes:
    """Return a text in which words and tokens change places, so that much of it keeps its form."""
    random = rng.random
    lines = data.split(b"\n")
    for _ in range(1 + int(random() * 3)):
        at = int(random() * len(lines))
        kind = int(random() * 6)
        if kind == 0 and len(lines) > 1:
            del lines[at]
        elif kind == 1:
            lines.insert(at, lines[int(random() * len(lines))])
        elif kind == 2:
            theirs = other.split(b"\n")
            lines.insert(at, theirs[int(random() * len(theirs))])
        else:
            words = lines[at].split(b" ")
            place = int(random() * len(words))
            token = tokens[int(random() * len(tokens))]
            if kind == 3:
                words[place] = token
            elif kind == 4:
                words.insert(place, token)
            else:
                word = words[place]
                cut = int(random() * (len(word) + 1))
                words[place] = word[:cut] + token + word[cut + int(random() * 3) :]
            lines[at] = b" ".join(words)
    return b"\n".join(lines)


def mutated_json(rng: Random, data: bytes, other: bytes, values: Sequence[Any] = ()) -> bytes:
    """Return JSON text of a value like that of ``data``; ``data`` itself where it is no JSON.

    Args:
        rng: Decides everything.
        data: JSON text.
        other: JSON text of which values may come in.
        values: Further values that may come in.
    """
    try:
        value, theirs = json.loads(data), json.loads(other)
    except (ValueError, RecursionError):
        return data
    pool = [*VALUES, *values]
    for _ in range(1 + int(rng.random() * 3)):
        value = mutated_value(rng, value, theirs, pool)
    return json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def mutated_value(rng: Random, value: Any, other: Any, pool: Sequence[Any]) -> Any:
    """Return a JSON value with one node of it changed; ``value`` is changed in place."""
    nodes = _nodes(value)
    if not nodes:
        return _changed(rng, value, other, pool)
    parent, key = nodes[int(rng.random() * len(nodes))]
    kind = int(rng.random() * 8)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, list):
        parent.insert(key, json.loads(json.dumps(parent[int(rng.random() * len(parent))])))
    elif kind == 1:
        names = [
            *(name for node, name in _nodes(other) if isinstance(name, str)),
            "a",
            "",
            "role",
            "x" * 40,
        ]
        parent[names[int(rng.random() * len(names))]] = parent[key]
    elif kind == 2 and isinstance(parent, list):
        theirs = int(rng.random() * len(parent))
        parent[key], parent[theirs] = parent[theirs], parent[key]
    elif kind == 2:
        parent[str(pool[int(rng.random() * len(pool))])] = parent.pop(key)
    else:
        parent[key] = _changed(rng, parent[key], other, pool)
    return value


def _nodes(value: Any) -> list[tuple[Any, Any]]:
    """Return every place of a value that holds another: its container and its key."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting and len(found) < 2000:
        own = waiting.pop()
        keys = list(own) if isinstance(own, dict) else range(len(own)) if isinstance(own, list) else ()
        for key in keys:
            found.append((own, key))
            waiting.append(own[key])
    return found


def _changed(rng: Random, value: Any, other: Any, pool: Sequence[Any]) -> Any:
    kind = int(rng.random() * 6)
    if kind == 0:
        return [value]
    if kind == 1:
        return json.dumps(value)
    if kind == 2:
        theirs = _nodes(other)
        if theirs:
            parent, key = theirs[int(rng.random() * len(theirs))]
            return json.loads(json.dumps(parent[key]))
    if kind == 3 and isinstance(value, str):
        at = int(rng.random() * (len(value) + 1))
        piece = str(pool[int(rng.random() * len(pool))])
        return value[:at] + piece + value[at + int(rng.random() * 4) :]
    if kind == 3 and isinstance(value, int | float):
        return -value if rng.random() < 0.3 else value + _NUMBERS[int(rng.random() * len(_NUMBERS))]
    return json.loads(json.dumps(pool[int(rng.random() * len(pool))]))
