"""Which sources a run has, which handler reads each file, and how many records of each are read."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from in_process import InProcess, plan_of

from mtsft_preproc import plan
from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.errors import InputError, MtsftError, SettingsError
from mtsft_preproc.handlers import handlers, user_file
from mtsft_preproc.mixing import Mix, Source
from mtsft_preproc.plan import Plan
from mtsft_preproc.sources import Sources, find_sources, with_defaults

ROW = {"instruction": "q", "input": "", "output": "a"}
CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
ALPACA, OPENAI = "AlpacaStyleInstructionHandler", "OpenAIInstructionHandler"
LLAMA_FACTORY = "LlamaFactoryInstructionHandler"
OWN = """
from mtsft_preproc.handlers import Dialogue, DialogueHandler, Message, Role, handler, needed_text

@handler("mine-of-sources")
class Mine(DialogueHandler):
    keys = {"ask": "instruction", "say": "output"}
    required = (("ask",), ("say",))

    def dialogue(self, record):
        texts = [needed_text(record, self.columns, key) for key in ("ask", "say")]
        return Dialogue([Message(Role.USER, texts[0]), Message(Role.ASSISTANT, texts[1])])
"""

MakeConfig = Callable[..., PreprocessConfig]


@pytest.fixture(scope="module", autouse=True)
def in_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "TokenizerLoading", InProcess)
        yield


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: rows.jsonl, chats.jsonl, and more/ with two files of rows."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rows.jsonl", ROW, 5)
    write(tmp_path / "chats.jsonl", CHAT, 4)
    (tmp_path / "more").mkdir()
    write(tmp_path / "more" / "a.jsonl", ROW, 3)
    write(tmp_path / "more" / "b.jsonl", ROW, 6)
    return tmp_path


@pytest.fixture
def own_handler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A file with a handler of the user's own, which is gone afterwards."""
    monkeypatch.setattr(user_file, "_modules", {})
    monkeypatch.setattr(user_file, "_names", {})
    before = set(sys.modules)
    (folder / "own.py").write_text(OWN)
    yield "own.py"
    handlers.discard("mine-of-sources")
    for module in set(sys.modules) - before:
        if module.startswith("mtsft_user_handlers_"):
            del sys.modules[module]


def write(path: Path, record: dict[str, Any], count: int) -> None:
    path.write_text((json.dumps(record) + "\n") * count)


@pytest.fixture
def mixed(folder: Path, make_config: MakeConfig) -> Callable[..., PreprocessConfig]:
    """Return settings with a mix file that holds these sources."""

    def make(sources: dict[str, Any], **changes: Any) -> PreprocessConfig:
        (folder / "mix.yaml").write_text(json.dumps({"sources": sources}))
        return make_config(**{"input": (), "mix": "mix.yaml", "handler_name": "auto", **changes})

    return make


def names(sources: Sources | Plan) -> list[str]:
    return [source.name for source in sources.mix.sources]


def files(sources: Sources | Plan) -> list[tuple[str, str]]:
    """Path of each file, with the name of its source."""
    own = names(sources)
    return [(file.path, own[owner]) for file, owner in zip(sources.files, sources.owners, strict=True)]


def counts(config: PreprocessConfig) -> dict[str, int]:
    """How many records are read of each file, by its path."""
    found: dict[str, int] = {}
    for shard in plan_of(config).shards:
        assert shard.max_records is not None
        found[shard.source.path] = found.get(shard.source.path, 0) + shard.max_records
    return found


def test_each_input_is_a_source(folder: Path, make_config: MakeConfig) -> None:
    found = find_sources(make_config(input=("more", "rows.jsonl", "more/*.jsonl")))
    assert files(found) == [
        ("more/a.jsonl", "more"), ("more/b.jsonl", "more"), ("rows.jsonl", "rows.jsonl"),
        ("more/a.jsonl", "more/*.jsonl"), ("more/b.jsonl", "more/*.jsonl"),
    ]  # fmt: skip
    assert found.owners == (0, 0, 1, 2, 2)
    assert found.mix == Mix(
        "concat", "samples", (Source("more"), Source("rows.jsonl"), Source("more/*.jsonl"))
    )
    assert found.mix.trivial


def test_sources_of_one_name_are_told_apart(folder: Path, make_config: MakeConfig) -> None:
    write(folder / "rows.jsonl#2", ROW, 1)
    given = ("rows.jsonl", "rows.jsonl", "rows.jsonl#2", "rows.jsonl", "rows.jsonl#2")
    assert names(find_sources(make_config(input=given))) == [
        "rows.jsonl", "rows.jsonl#3", "rows.jsonl#2", "rows.jsonl#4", "rows.jsonl#2#2",
    ]  # fmt: skip


def test_a_file_of_two_sources_is_read_for_each_with_a_word(
    folder: Path, make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    found = find_sources(make_config(input=("more/a.jsonl", "more")))
    assert [path for path, _ in files(found)] == ["more/a.jsonl", "more/a.jsonl", "more/b.jsonl"]
    warned = [record.getMessage() for record in caplog.records]
    assert warned == [f"{folder}/more/a.jsonl is in 2 sources (more/a.jsonl, more) and is read for each"]


def test_shares_belong_to_the_inputs_in_their_order(folder: Path, make_config: MakeConfig) -> None:
    two = {"input": ("rows.jsonl", "more"), "mix_strategy": "interleave_under"}
    assert find_sources(make_config(**two, interleave_probs=(0.7, 0.3))).mix == Mix(
        "interleave_under", "samples", (Source("rows.jsonl", 0.7), Source("more", 0.3))
    )
    assert find_sources(make_config(**two)).mix.shares == [0.5, 0.5]
    with pytest.raises(SettingsError) as caught:
        find_sources(make_config(**two, interleave_probs=(0.5, 0.3, 0.2)))
    assert str(caught.value) == (
        "--interleave-probs: expected a share for each of the 2 sources (rows.jsonl, more), got 3"
    )


@pytest.mark.parametrize("probs", [(), (1.0,)])
def test_a_single_source_takes_no_turns(
    probs: tuple[float, ...], folder: Path, make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"input": ("more",), "mix_strategy": "interleave_over", "interleave_probs": probs}
    found = find_sources(make_config(**settings))
    assert found.mix == Mix("concat", "samples", (Source("more"),))
    assert "--mix-strategy interleave_over has no effect: there is one source, more" in caplog.text


def test_a_single_source_of_a_mix_keeps_its_epochs(mixed: MakeConfig) -> None:
    one = {"a": {"input": "rows.jsonl", "epochs": 2.5}}
    found = find_sources(mixed(one, mix_strategy="interleave_under")).mix
    assert found == Mix("concat", "samples", (Source("a", None, 2.5),))


@pytest.fixture
def info(folder: Path) -> Path:
    """dataset_info.json: ``folder`` is the folder more, four records of it; ``rows`` is rows.jsonl."""
    entries = {
        "folder": {"file_name": "more", "num_samples": 4},
        "rows": {"file_name": "rows.jsonl"},
    }
    (folder / "dataset_info.json").write_text(json.dumps(entries))
    return folder


def test_the_names_of_dataset_info_are_the_sources(info: Path, make_config: MakeConfig) -> None:
    """And the records of one are counted over all its files."""
    config = make_config(
        input=("folder", "rows,folder"),
        handler_name="llama-factory",
        dataset_dir=str(info),
        mix_strategy="interleave_over",
        interleave_probs=(0.5, 0.25, 0.25),
    )
    found = find_sources(config)
    assert found.mix.sources == (
        Source("folder", 0.5, 1.0, 4), Source("rows", 0.25), Source("folder#2", 0.25, 1.0, 4),
    )  # fmt: skip
    assert found.owners == (0, 0, 1, 2, 2)
    read = [(shard.file, shard.max_records) for shard in plan_of(config).shards]
    assert read == [(0, 3), (1, 1), (2, None), (3, 3), (4, 1)]


def test_a_mix_names_its_sources(mixed: MakeConfig) -> None:
    config = mixed(
        {
            "all": {"input": ["rows.jsonl", "more/*.jsonl"], "weight": 3},
            "chats": {"input": "chats.jsonl", "weight": 1, "max_samples": 2},
        },
        mix_strategy="interleave_under",
    )
    found = find_sources(config)
    assert files(found) == [
        ("rows.jsonl", "all"), ("more/a.jsonl", "all"), ("more/b.jsonl", "all"), ("chats.jsonl", "chats"),
    ]  # fmt: skip
    assert found.mix == Mix(
        "interleave_under", "samples", (Source("all", 3.0), Source("chats", 1.0, 1.0, 2))
    )
    assert [choice.name for choice in found.choices] == [ALPACA] * 3 + [OPENAI]


def test_a_source_has_the_handler_and_columns_of_the_run_unless_it_names_its_own(
    folder: Path, own_handler: str, mixed: MakeConfig
) -> None:
    write(folder / "talks.jsonl", {"talk": CHAT["messages"]}, 2)
    found = find_sources(
        mixed(
            {
                "rows": {"input": "rows.jsonl"},
                "others": {"input": "rows.jsonl", "map_keys": {"query": ""}},
                "talks": {"input": "talks.jsonl", "handler": "openai", "map_keys": {"messages": "talk"}},
                "found": {"input": "chats.jsonl", "handler": "auto", "map_keys": {}},
                "mine": {"input": "rows.jsonl", "handler": "mine-of-sources", "map_keys": {}},
            },
            handler_name="alpaca",
            map_keys='{"system": "input", "query": ""}',
            handler_path=own_handler,
        )
    )
    assert [(choice.name, json.loads(choice.map_keys)) for choice in found.choices] == [
        (ALPACA, {"system": "input", "query": ""}),
        (ALPACA, {"query": ""}),
        (OPENAI, {"messages": "talk"}),
        (OPENAI, {}),
        ("mine-of-sources", {}),
    ]
    # The user's file is behind its own handler alone.
    assert [choice.file_sha256 is not None for choice in found.choices] == [False] * 4 + [True]


def test_a_file_without_records_takes_the_handler_of_its_source(folder: Path, mixed: MakeConfig) -> None:
    (folder / "empty.jsonl").write_text("")
    sources = {"a": ["rows.jsonl"], "b": ["empty.jsonl", "chats.jsonl"], "c": ["empty.jsonl"]}
    config = mixed({name: {"input": given} for name, given in sources.items()})
    assert [choice.name for choice in find_sources(config).choices] == [ALPACA, OPENAI, OPENAI, ALPACA]
    with pytest.raises(InputError, match=r"^--mix: mix\.yaml: no records$"):
        find_sources(mixed({"c": {"input": "empty.jsonl"}}))


#: Sources of a mix, further settings, and the error, behind "--mix: mix.yaml: ".
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "missing": (
        {"a": {"input": "rows.jsonl"}, "b": {"input": "gone.jsonl"}}, {},
        "source 'b': no such file or folder: gone.jsonl",
    ),
    "handler": (
        {"a": {"input": "rows.jsonl", "handler": "alpca"}}, {},
        "source 'a': field 'handler': unknown handler 'alpca'; did you mean 'alpaca'",
    ),
    "dataset-info": (
        {"a": {"input": "rows.jsonl", "handler": "llama-factory"}}, {},
        "source 'a': field 'handler': LlamaFactoryInstructionHandler can't be in --mix, as its sources",
    ),
    "map-keys": (
        {"a": {"input": "rows.jsonl", "handler": "alpaca", "map_keys": {"quary": ""}}}, {},
        "source 'a': --map-keys: unknown key 'quary'; did you mean 'query'",
    ),
    "no-such-column": (
        {"a": {"input": "chats.jsonl"},
         "b": {"input": "rows.jsonl", "handler": "alpaca", "map_keys": {"history": "past"}},
         "c": {"input": "more", "handler": "alpaca", "map_keys": {"history": "past"}}}, {},
        "sources 'b' and 'c': --map-keys: 'history': the data has no column 'past'",
    ),
    "not-its-format": (
        {"a": {"input": ["rows.jsonl", "chats.jsonl"], "handler": "alpaca"}}, {},
        "source 'a': chats.jsonl: no column 'instruction' or 'input' (--map-keys prompt/query)",
    ),
    "kinds": (
        {"a": {"input": "rows.jsonl", "handler": "alpaca"},
         "b": {"input": "rows.jsonl", "handler": "pretrain"}}, {"json_keys": ("output",)},
        "files that don't go together: those of AlpacaStyleInstructionHandler become sft, those of ",
    ),
    "weights": (
        {"a": {"input": "rows.jsonl", "weight": 1}}, {"mix_strategy": "concat"},
        "source 'a': field 'weight': expected --mix-strategy interleave_under or",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_names_the_file_and_the_source(case: str, mixed: MakeConfig) -> None:
    sources, settings, reason = REFUSED[case]
    with pytest.raises(MtsftError) as caught:
        find_sources(mixed(sources, **settings))
    assert str(caught.value).startswith(f"--mix: mix.yaml: {reason}")
    assert "\n" not in str(caught.value)


def test_dataset_info_is_no_handler_of_a_mix(info: Path, mixed: MakeConfig) -> None:
    one = {"a": {"input": "rows.jsonl"}}
    with pytest.raises(SettingsError, match=f"^--handler-name: {LLAMA_FACTORY} can't be in --mix, as its"):
        find_sources(mixed(one, handler_name="llama-factory", dataset_dir=str(info)))
    with pytest.raises(
        SettingsError, match=f"^--dataset-dir: belongs to --handler-name {LLAMA_FACTORY} al"
    ):
        find_sources(mixed(one, dataset_dir=str(info)))


@pytest.mark.parametrize(
    ("limits", "most", "expected"),
    [
        # rows.jsonl has 5, more/a.jsonl 3, more/b.jsonl 6.
        ((7, 9), None, {"rows.jsonl": 5, "more/a.jsonl": 2, "more/b.jsonl": 6}),
        ((3, 2), None, {"rows.jsonl": 3, "more/b.jsonl": 2}),
        ((7, 9), 9, {"rows.jsonl": 5, "more/a.jsonl": 2, "more/b.jsonl": 2}),
        ((7, 9), 4, {"rows.jsonl": 4}),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shard_bytes", [None, 50])
def test_records_are_counted_over_the_files_of_a_source(
    limits: tuple[int, int],
    most: int | None,
    expected: dict[str, int],
    packed: bool,
    shard_bytes: int | None,
    folder: Path,
    mixed: MakeConfig,
) -> None:
    first, second, third = ["rows.jsonl", "more/a.jsonl", "more/b.jsonl"]
    if packed:
        (folder / "rows.jsonl.gz").write_bytes(gzip.compress((folder / first).read_bytes()))
        expected = {path.replace(first, f"{first}.gz"): count for path, count in expected.items()}
        first += ".gz"
    config = mixed(
        {
            "a": {"input": [first, second], "max_samples": limits[0]},
            "b": {"input": third, "max_samples": limits[1]},
        },
        max_samples=most,
        shard_bytes=shard_bytes,
    )
    assert counts(config) == expected


def test_the_fingerprint_holds_the_mix(folder: Path, mixed: MakeConfig) -> None:
    """Each field of the file, though the files that are read are the same."""

    def of(*sources: dict[str, Any], strategy: str = "interleave_over", first: str = "a") -> str:
        paths = ("rows.jsonl", "more/a.jsonl")
        given = {
            name: {"input": path, **fields}
            for name, path, fields in zip((first, "b"), paths, sources, strict=False)
        }
        return plan_of(mixed(given, mix_strategy=strategy)).fingerprint

    plain = of({}, {})
    assert of({}, {}) == plain
    found = [
        plain,
        of({}, {}, strategy="interleave_under"),
        of({}, {}, strategy="concat"),
        of({}, {}, first="c"),
        of({"weight": 1}, {"weight": 2}),
        of({"weight": 2}, {"weight": 1}),
        of({"epochs": 1}, {}),
        of({"epochs": 2}, {}),
        # More than the file holds.
        of({"max_samples": 50}, {}),
        of({}, {}, strategy="concat"),
        of({"epochs": 2}, strategy="concat"),
        of({"max_samples": 50}, strategy="concat"),
        of({}, strategy="concat"),
    ]
    assert len(set(found)) == len(found) - 1  # concat is there twice


def test_weights_by_is_in_the_fingerprint(folder: Path, make_config: MakeConfig) -> None:
    found = set()
    for weights_by in ("samples", "trained_tokens"):
        spec = {
            "weights_by": weights_by,
            "sources": {n: {"input": "rows.jsonl", "weight": 1} for n in "ab"},
        }
        (folder / "mix.yaml").write_text(json.dumps(spec))
        config = make_config(input=(), mix="mix.yaml", mix_strategy="interleave_over")
        found.add(plan_of(config).fingerprint)
    assert len(found) == 2


def test_the_identity_says_which_source_a_file_is_of(folder: Path, make_config: MakeConfig) -> None:
    identity = plan_of(make_config(input=("more", "rows.jsonl"))).identity
    assert json.loads(json.dumps(identity)) == identity
    assert [(entry["path"], entry["source"]) for entry in identity["inputs"]] == [
        ("more/a.jsonl", "more"), ("more/b.jsonl", "more"), ("rows.jsonl", "rows.jsonl"),
    ]  # fmt: skip
    assert identity["mix"] == {
        "strategy": "concat",
        "weights_by": "samples",
        "sources": [
            {"name": name, "weight": None, "epochs": 1.0, "max_samples": None}
            for name in ("more", "rows.jsonl")
        ],
    }
    assert "mix" not in plan_of(make_config(input=("more",))).identity


def settled(config: PreprocessConfig) -> PreprocessConfig:
    return with_defaults(config, find_sources(config))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "--pack: expected --seq-length N, the tokens of each pack, got none"),
        (
            {"seq_length": 100, "pad_to_multiple_of": 8},
            "--seq-length: expected a multiple of --pad-to-multiple-of 8 with --pack, got 100",
        ),
        (
            {"handler_name": "pretrain", "json_keys": ("output",), "prompt_type": None, "seq_length": 64},
            "--pack: belongs to handlers of dialogues to fine-tune on; GeneralPretrainHandler is none",
        ),
        (
            {"handler_name": "alpaca-ppo", "seq_length": 64},
            "--pack: belongs to handlers of dialogues to fine-tune on; PPOAlpacaStyleInstructionHandler is",
        ),
    ],
)
def test_what_cannot_be_packed_is_refused(
    settings: dict[str, Any], reason: str, folder: Path, make_config: MakeConfig
) -> None:
    with pytest.raises(SettingsError) as caught:
        settled(make_config(input=("rows.jsonl",), pack=True, **settings))
    assert str(caught.value).startswith(reason)


def test_packs_are_as_long_as_the_format_has_it(folder: Path, make_config: MakeConfig) -> None:
    """MOSS brings along a length of 2048."""
    talk = {"meta_instruction": "m", "num_turns": 1, "chat": {"turn_1": {"Human": "q", "MOSS": "a"}}}
    write(folder / "moss.jsonl", talk, 1)
    config = make_config(
        input=("moss.jsonl",), handler_name="moss", prompt_type=None, pack=True, pad_to_multiple_of=8
    )
    assert settled(config).seq_length == 2048


def test_alignment_belongs_to_packs_and_text(folder: Path, make_config: MakeConfig) -> None:
    config = {"input": ("rows.jsonl",), "seq_length": 64, "pad_to_multiple_of": 8}
    assert settled(make_config(**config, pack=True)).pad_to_multiple_of == 8
    with pytest.raises(
        SettingsError, match=r"^--pad-to-multiple-of: belongs to handlers of text documents, or"
    ):
        settled(make_config(**config))
