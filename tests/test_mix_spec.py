"""The file behind --mix: what it stands for, and each thing in it that is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtsft_preproc.errors import SettingsError
from mtsft_preproc.mix_spec import MixSpec, SpecEntry, make_mix, read_mix_spec
from mtsft_preproc.mixing import Mix, Source

FULL = """
# Chats and code, seven to three.
weights_by: trained_tokens
sources:
  chats:
    input: [a.parquet, "more/*.jsonl"]
    handler: AlpacaStyleInstructionHandler
    map_keys: {history: histories, query: "", tags: {role_tag: "no"}}
    weight: 0.7
    max_samples: 1000
  code:
    input: code/
    weight: 3
"""


def read(folder: Path, text: str | bytes, strategy: str = "interleave_over") -> MixSpec:
    path = folder / "mix.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_mix_spec(str(path), strategy)


def source(**fields: Any) -> str:
    """A file with one source whose fields are these YAML texts."""
    given = {"input": "a.jsonl", **fields}
    lines = [f"    {name}: {value}" for name, value in given.items()]
    return "\n".join(["sources:", "  chats:", *lines])


def test_all_fields(tmp_path: Path) -> None:
    assert read(tmp_path, FULL) == MixSpec(
        (
            SpecEntry(
                "chats",
                ("a.parquet", "more/*.jsonl"),
                "AlpacaStyleInstructionHandler",
                {"history": "histories", "query": "", "tags": {"role_tag": "no"}},
                weight=0.7,
                max_samples=1000,
            ),
            SpecEntry("code", ("code/",), weight=3.0),
        ),
        "trained_tokens",
    )


def test_what_is_not_given_is_left_to_the_run(tmp_path: Path) -> None:
    assert read(tmp_path, source(epochs="2.5"), "concat") == MixSpec(
        (SpecEntry("chats", ("a.jsonl",), epochs=2.5),), "samples"
    )


def test_hyphens_are_as_good(tmp_path: Path) -> None:
    hyphens = FULL.replace("weights_by", "weights-by").replace("map_keys", "map-keys")
    hyphens = hyphens.replace("max_samples", "max-samples")
    assert "max-samples" in hyphens
    assert read(tmp_path, hyphens) == read(tmp_path, FULL)


def test_json_is_yaml(tmp_path: Path) -> None:
    text = '{"sources": {"a": {"input": ["x.json"], "weight": 1e-1}, "b": {"input": "y", "weight": 2E+3}}}'
    assert read(tmp_path, b"\xef\xbb\xbf" + text.encode()) == MixSpec(
        (SpecEntry("a", ("x.json",), weight=0.1), SpecEntry("b", ("y",), weight=2000.0))
    )


def test_fields_may_come_from_an_anchor(tmp_path: Path) -> None:
    """A merge key is no duplicate, and what it brings along may be given anew."""
    text = """
sources:
  a: &first {input: a.jsonl, epochs: 2, handler: alpaca}
  b:
    <<: *first
    input: b.jsonl
  c: *first
"""
    found = read(tmp_path, text, "concat").entries
    assert found == (
        SpecEntry("a", ("a.jsonl",), "alpaca", epochs=2.0),
        SpecEntry("b", ("b.jsonl",), "alpaca", epochs=2.0),
        SpecEntry("c", ("a.jsonl",), "alpaca", epochs=2.0),
    )


#: The file, and what stands in the error behind its name. Strategy: interleave_over.
REFUSED: dict[str, tuple[str | bytes, str]] = {
    "not-yaml": (
        "sources: [",
        "line 1: not YAML: while parsing a flow node, expected the node content, but found '<stream end>'",
    ),
    "tab": (
        "sources:\n\ta: 1",
        "line 2: not YAML: while scanning for the next token, found character '\\t' that",
    ),
    "not-utf-8": (b"sources: {\xff: 1}", "not YAML: 'utf-8' codec can't decode byte 0xff"),
    "no-text": (b"sources: {a: \x00}", "not YAML: unacceptable character #x0000"),
    "no-date": (source(handler="2024-02-31"), "not YAML: day "),
    "deep": ("[" * 3000, "not YAML: nested too deeply"),
    "python": (source(handler="!!python/name:os.system"), "line 4: not YAML: could not determine a const"),
    "two-documents": (
        "a: 1\n---\nb: 2",
        "line 2: not YAML: expected a single document in the stream, but found another",
    ),
    "empty": ("", 'expected a mapping with "sources", got None'),
    "list": ("- a.jsonl", "expected a mapping with \"sources\", got ['a.jsonl'] (list)"),
    "no-sources": ("weights_by: samples", "field 'sources': expected sources by their names, got none"),
    "empty-sources": ("sources: {}", "field 'sources': expected sources by their names, got none"),
    "listed-sources": (
        "sources: [a]",
        "field 'sources': expected sources by their names, got ['a'] (list)",
    ),
    "unknown-top": ("source: {}", "unknown field 'source'; did you mean 'sources'? available: sources, "),
    "weights-by": (
        f"weights_by: tokens\n{source(weight='1')}",
        "field 'weights_by': expected samples or trained_tokens, got 'tokens'",
    ),
    "weights-by-null": (f"weights_by:\n{source(weight='1')}", "field 'weights_by': expected samples or"),
    "weights-by-of-epochs": (
        f"weights_by: samples\n{source(epochs='1')}",
        "field 'weights_by': expected weights to go with it, got epochs",
    ),
    "name-of-a-number": ("sources: {5: {input: a}}", "field 'sources': expected a text as name of each"),
    "name-of-a-bool": ("sources: {no: {input: a}}", "field 'sources': expected a text as name of each"),
    "empty-name": ("sources: {'': {input: a}}", "field 'sources': expected a text as name of each source"),
    "half-a-character": (
        'sources: {"\\ud83d": {input: a}}',
        "field 'sources': expected a text as name of each source, got '\\ud83d'",
    ),
    "source-of-a-text": (
        "sources: {chats: a.jsonl}",
        "source 'chats': expected a mapping with \"input\", got 'a.jsonl'",
    ),
    "unknown-field": (
        source(wieght="1"),
        "source 'chats': unknown field 'wieght'; did you mean 'weight'? available: epochs, handler, input,",
    ),
    "unknown-field-of-a-number": (
        "sources: {chats: {1: 2}}",
        "source 'chats': unknown field 1 (int); avail",
    ),
    "twice": (
        source() + "\n    input: b.jsonl",
        "line 4: 'input' stands there twice; expected each name once",
    ),
    "source-twice": (
        "sources:\n  a: {input: x}\n  'a': {input: y}",
        "line 3: 'a' stands there twice; expected each name once",
    ),
    "twice-in-json": ('{"sources": {"a": {"input": "x", "input": "y"}}}', "line 1: 'input' stands there"),
    "twice-with-hyphen": (
        source(**{"map_keys": "{}", "map-keys": "{}"}),
        "source 'chats': field 'map_keys': expected it once, got it with a hyphen, too",
    ),
    "no-input": ("sources: {chats: {weight: 1}}", "source 'chats': field 'input': expected files, folders"),
    "empty-input": (
        source(input="[]"),
        "source 'chats': field 'input': expected a file, folder or glob, or",
    ),
    "null-input": (
        source(input=""),
        "source 'chats': field 'input': expected a file, folder or glob, or a",
    ),
    "input-of-a-number": (
        source(input="[a.jsonl, 5]"),
        "source 'chats': field 'input': expected a file, folder or glob, or a list of them, got ['a.json",
    ),
    "handler": (
        source(handler="[a]"),
        "source 'chats': field 'handler': expected the name of a handler, got",
    ),
    "map-keys": (
        source(map_keys="a=b"),
        "source 'chats': field 'map_keys': expected a mapping from keys to columns, got 'a=b'",
    ),
    "map-keys-key": (source(map_keys="{1: a}"), "source 'chats': field 'map_keys': expected texts as keys"),
    "map-keys-bool": (
        source(map_keys="{history: no}"),
        "source 'chats': field 'map_keys': 'history': expected the name of a column, got False (bool)",
    ),
    "map-keys-date": (
        source(map_keys="{history: 2024-01-01}"),
        "source 'chats': field 'map_keys': 'history': expected the name of a column, got datetime.date(",
    ),
    "map-keys-tag": (
        source(map_keys="{tags: {role_tag: 1}}"),
        "source 'chats': field 'map_keys': 'role_tag': expected the name of a column, got 1 (int)",
    ),
    "both": (
        source(weight="1", epochs="2"),
        "source 'chats': fields 'weight' and 'epochs': expected one of them, got both",
    ),
    **{
        f"{field}-{value}": (
            source(**{field: value}),
            f"source 'chats': field '{field}': expected a number above 0, got ",
        )
        for field in ("weight", "epochs")
        for value in (
            "0",
            "-1",
            "0.0",
            ".nan",
            ".inf",
            "true",
            "'1'",
            "much",
            "[1]",
            "null",
            "1" + "0" * 400,
        )
    },
    **{
        f"max-samples-{value}": (
            source(max_samples=value),
            "source 'chats': field 'max_samples': expected a whole number of at least 1, got ",
        )
        for value in ("0", "-1", "1.5", "2.0", "true", "'1'", "null")
    },
    "weights-of-some": (
        "sources: {a: {input: x}, b: {input: y, weight: 1}}",
        "source 'a': field 'weight': expected one, as source 'b' has, got nothing",
    ),
    "weights-and-epochs": (
        "sources: {a: {input: x, weight: 1}, b: {input: y, epochs: 1}}",
        "source 'b': field 'weight': expected one, as source 'a' has, got epochs",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    text, reason = REFUSED[case]
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    line = str(caught.value)
    assert line.startswith(f"--mix: {tmp_path}/mix.yaml: {reason}")
    assert "\n" not in line


def test_weights_need_sources_that_take_turns(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, source(weight="1"), "concat")
    assert str(caught.value) == (
        f"--mix: {tmp_path}/mix.yaml: source 'chats': field 'weight': expected --mix-strategy "
        "interleave_under or interleave_over with it, got concat"
    )
    with pytest.raises(
        SettingsError, match="field 'weights_by': expected weights to go with it, got --mix-"
    ):
        read(tmp_path, "weights_by: samples\n" + source(), "concat")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "no.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(SettingsError, match=f"^--mix: {path}: {reason}; expected a YAML file"):
            read_mix_spec(str(path), "concat")


def entry(name: str, **fields: Any) -> SpecEntry:
    return SpecEntry(name, (f"{name}.jsonl",), **fields)


@pytest.mark.parametrize(
    ("strategy", "entries", "sources"),
    [
        ("concat", [entry("a"), entry("b")], (Source("a"), Source("b"))),
        ("concat", [entry("a", epochs=0.5), entry("b")], (Source("a", epochs=0.5), Source("b"))),
        # Nothing given: equal shares. Epochs of some: those, and once for the rest.
        ("interleave_under", [entry("a"), entry("b")], (Source("a", 1.0), Source("b", 1.0))),
        ("interleave_over", [entry("a", epochs=1.0), entry("b")], (Source("a"), Source("b"))),
        ("interleave_over", [entry("a", epochs=2.0), entry("b")], (Source("a", None, 2.0), Source("b"))),
        (
            "interleave_over",
            [entry("a", weight=0.7, max_samples=5), entry("b", weight=0.3)],
            (Source("a", 0.7, 1.0, 5), Source("b", 0.3)),
        ),
    ],
)
def test_the_mix_of_sources(strategy: str, entries: list[SpecEntry], sources: tuple[Source, ...]) -> None:
    assert make_mix(entries, strategy, "samples") == Mix(strategy, "samples", sources)
