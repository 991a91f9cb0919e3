"""Whole runs with chat templates: the bytes, the counts, and what a run says of them."""

from __future__ import annotations

import datetime
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from in_process import InProcess
from transformers import AutoTokenizer

from mtsft_preproc import finish, plan, publish
from mtsft_preproc.cli.summary import summary
from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.errors import OutputError, TemplateError
from mtsft_preproc.indexed import IndexedDataset
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.pipeline import RunResult, preprocess

TOKENIZER = Path(__file__).parents[1] / "examples" / "tokenizer"
IM_END, EOS = 3964, 3966

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
#: Leaves thoughts out of all replies but the last.
FORGETFUL = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and not loop.last %}"
    "{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
#: Ends no turn.
ENDLESS = (
    "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}\n{% else %}{{ m.content }}\n"
    "{% endif %}{% endfor %}"
)
#: Ends the last turn alone.
ENDS_LAST = (
    "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}<|assistant|>{% else %}"
    "{{ m.content }}{% if loop.last %}<eos>{% endif %}{% endif %}{% endfor %}"
)
#: Takes one round.
SHORT = "{% if messages | length > 2 %}{{ raise_exception('one round,\nno more') }}{% endif %}" + CHATML
#: Says of a reply what it can't be told apart from.
MIXED = "{% for m in messages %}{{ (m.content ~ messages[0].content) | upper }}\n{% endfor %}"
SILENT = "{% for m in messages if m.role == 'user' %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
DATED = "{{ strftime_now('%d %B %Y') }}\n" + CHATML


def record(*texts: str, system: str = "") -> dict[str, Any]:
    """Return a record of questions and replies, by turns."""
    pairs = [list(pair) for pair in zip(texts[::2], texts[1::2], strict=True)]
    return {"instruction": pairs[-1][0], "output": pairs[-1][1], "history": pairs[:-1], "system": system}


def messages(entry: dict[str, Any]) -> list[dict[str, str]]:
    """Return a record as messages for ``apply_chat_template``."""
    found = [{"role": "system", "content": entry["system"]}] if entry["system"] else []
    for question, reply in [*entry["history"], [entry["instruction"], entry["output"]]]:
        found += [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    return found


PLAIN = [
    record("Hi!", "Hello. How are you?"),
    record("one", "1", "two", "2", "three", "3", system="Count."),
    record("什么？", "def f(x):\n    return x", "again", " spaced \n"),
]
#: Two of four turns whose thoughts are forgotten, in the middle of the file.
THOUGHTS = [
    PLAIN[0],
    record("a", "<think>hm</think>A", "b", "B", "c", "<think>so</think>C", "d", "<think>last</think>D"),
    PLAIN[1],
]

Run = Callable[..., RunResult]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "TokenizerLoading", InProcess)


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., PreprocessConfig]:
    """Return settings of a run with a tokenizer folder of its own."""

    def of(template: str | None, records: list[Any] | None = None, **changes: Any) -> PreprocessConfig:
        folder = tmp_path / "tokenizer"
        if not folder.exists():
            shutil.copytree(TOKENIZER, folder)
        if template is not None:
            (folder / "chat_template.jinja").write_text(template, "utf-8")
        source = tmp_path / "in.jsonl"
        if records is not None:
            source.write_text("".join(json.dumps(entry) + "\n" for entry in records), "utf-8")
        given: dict[str, Any] = {
            "input": (str(source),),
            "output_prefix": str(tmp_path / "out" / "data"),
            "tokenizer": str(folder),
            "handler_name": "alpaca",
            "chat_template": "tokenizer",
            "map_keys": '{"history": "history", "system": "system"}',
            "max_rejected": 1.0,
        }
        return PreprocessConfig(**{**given, **changes})

    return of


@pytest.fixture
def run(in_process: None, settings: Callable[..., PreprocessConfig]) -> Run:
    """Make a dataset."""

    def of(template: str | None, records: list[Any] | None = None, **changes: Any) -> RunResult:
        return preprocess(settings(template, records, **changes))

    return of


def items(result: RunResult) -> list[tuple[list[int], list[int]]]:
    """Return ids and labels of each item."""
    paths = OutputPaths(result.prefix)
    fields = [IndexedDataset(paths.dataset(f"packed_{field}")) for field in ("input_ids", "labels")]
    return [(ids.tolist(), labels.tolist()) for ids, labels in zip(*fields, strict=True)]


def rejected(result: RunResult) -> list[dict[str, Any]]:
    lines = OutputPaths(result.prefix).rejected.read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def sources(result: RunResult) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(OutputPaths(result.prefix).sources).to_pylist()
    return found


def published(result: RunResult) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in sorted(result.prefix.parent.iterdir())
        if path.is_file() and path.name != "data.timings.json"
    }


def serving(entry: dict[str, Any], template: str, variables: Any = None) -> tuple[list[int], list[int]]:
    """Return what transformers makes of a record, and which of it comes from the assistant, by hand."""
    tokenizer: Any = AutoTokenizer.from_pretrained(str(TOKENIZER))
    ids: list[int] = tokenizer.apply_chat_template(
        messages(entry), chat_template=template, return_dict=True, **(variables or {})
    )["input_ids"]
    labels, speaks = [], False
    header = tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False)
    for place, token in enumerate(ids):
        labels.append(token if speaks else -100)
        if token == IM_END:
            speaks = False
        elif ids[max(0, place + 1 - len(header)) : place + 1] == header:
            speaks = True
    return ids, labels


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was said, with the level in front."""
    return [
        f"{entry.levelname}: {entry.getMessage()}"
        for entry in caplog.records
        if entry.name == "mtsft_preproc.pipeline"
    ]


@pytest.fixture(autouse=True)
def all_levels(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, logger="mtsft_preproc"):
        yield


# The bytes


def test_ids_and_labels_are_those_of_transformers(run: Run) -> None:
    result = run(CHATML, PLAIN)
    assert items(result) == [serving(entry, CHATML) for entry in PLAIN]
    assert result.manifest["records"]["notes"] == {}


@pytest.mark.parametrize("thinking", ["none", "true", "false"])
def test_variables_reach_the_template(thinking: str, run: Run) -> None:
    template = "{{ greeting }} {{ enable_thinking is defined }} {{ enable_thinking }}\n" + CHATML
    given = {} if thinking == "none" else {"enable_thinking": thinking == "true"}
    result = run(
        template, PLAIN, enable_thinking=thinking, chat_template_kwargs='{"greeting": "Grüß Gott"}'
    )
    variables = {"greeting": "Grüß Gott", **given}
    assert items(result) == [serving(entry, template, variables) for entry in PLAIN]
    assert result.manifest["chat_template"]["kwargs"] == variables


def test_the_bytes_are_the_same_from_any_kind_of_file(run: Run, tmp_path: Path) -> None:
    plain = [{**entry, "system": "S"} for entry in [*PLAIN, *THOUGHTS]]
    (tmp_path / "in.json").write_text(json.dumps(plain), "utf-8")
    pq.write_table(pa.Table.from_pylist(plain), tmp_path / "in.parquet")
    found = []
    for name in ("in.jsonl", "in.json", "in.parquet"):
        result = run(
            FORGETFUL,
            plain,
            input=(str(tmp_path / name),),
            output_prefix=str(tmp_path / name.replace(".", "-") / "data"),
            parity="split",
        )
        found.append({name: raw for name, raw in published(result).items() if "packed" in name})
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 6


def test_the_bytes_depend_on_neither_workers_nor_shards(
    settings: Callable[..., PreprocessConfig], tmp_path: Path
) -> None:
    """With the tokenizer's process and workers as users have them."""
    many = [entry for number in range(25) for entry in (*THOUGHTS, record(f"q{number}", "", "x", "y"))]
    ways: list[dict[str, Any]] = [
        {"workers": 2, "shard_bytes": 1500},
        {"workers": 1, "shard_bytes": 1},
        {"workers": 1},
    ]
    found = []
    for number, way in enumerate(ways):
        prefix = str(tmp_path / str(number) / "data")
        config = settings(FORGETFUL, many, parity="split", output_prefix=prefix, seq_length=99, **way)
        found.append(published(preprocess(config)))
    assert found[0] == found[1] == found[2]
    manifest = json.loads(found[0]["data.manifest.json"])
    assert manifest["records"]["read"] == 100
    assert manifest["parity"]["turns"]["split-samples"] == 50


def test_append_eod_closes_each_sample_with_a_trained_token(run: Run) -> None:
    closed = items(run(CHATML, PLAIN, append_eod=True))
    for entry, (ids, labels) in zip(PLAIN, closed, strict=True):
        wanted_ids, wanted_labels = serving(entry, CHATML)
        assert ids == [*wanted_ids, EOS]
        assert labels == [*wanted_labels, EOS]


@pytest.mark.parametrize("name", ["tokenizer", "default", "tool_use"])
def test_a_folder_with_several_templates(name: str, run: Run, tmp_path: Path) -> None:
    """Records without tools take the default one, unless another is named."""
    shutil.copytree(TOKENIZER, tmp_path / "tokenizer")
    more = tmp_path / "tokenizer" / "additional_chat_templates"
    more.mkdir()
    (more / "tool_use.jinja").write_text("Tools!\n" + CHATML)
    result = run(CHATML, PLAIN, chat_template=name)
    template = "Tools!\n" + CHATML if name == "tool_use" else CHATML
    assert items(result) == [serving(entry, template) for entry in PLAIN]


def test_a_folder_without_a_default_template_names_those_it_has(run: Run, tmp_path: Path) -> None:
    shutil.copytree(TOKENIZER, tmp_path / "tokenizer")
    path = tmp_path / "tokenizer" / "tokenizer_config.json"
    named = [{"name": name, "template": CHATML} for name in ("rag", "tool_use")]
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": named}))
    with pytest.raises(TemplateError, match=r"none in .* is called default; .*: rag, tool_use$"):
        run(None, PLAIN)
    assert items(run(None, PLAIN, chat_template="rag")) == [serving(entry, CHATML) for entry in PLAIN]


# Serving parity


def test_split_gives_each_turn_that_reads_otherwise_a_sample_of_its_own(run: Run) -> None:
    result = run(FORGETFUL, THOUGHTS, parity="split")
    # Messages 1 and 5 of row 1 forget their thoughts; 3 and 7 stay with the whole dialogue.
    assert [(row["row"], row["turn"]) for row in sources(result)] == [
        (0, None),
        (1, None),
        (1, 1),
        (1, 5),
        (2, None),
    ]
    counts = result.manifest["records"]
    assert (counts["read"], counts["kept"], counts["rejected"]) == (3, 3, 0)
    assert result.manifest["items"] == result.manifest["samples"] == 5
    assert [row["item"] for row in sources(result)] == [0, 1, 2, 3, 4]
    tokenizer: Any = AutoTokenizer.from_pretrained(str(TOKENIZER))
    trained = [
        tokenizer.decode([label for label in labels if label != -100]) for _, labels in items(result)
    ]
    assert trained[1:4] == [
        "B<|im_end|><think>last</think>D<|im_end|>",
        "<think>hm</think>A<|im_end|>",
        "<think>so</think>C<|im_end|>",
    ]
    # Each is what a server has up to its turn.
    said = messages(THOUGHTS[1])
    for (ids, _), until in zip(items(result)[1:4], (8, 2, 6), strict=True):
        assert (
            ids
            == tokenizer.apply_chat_template(said[:until], chat_template=FORGETFUL, return_dict=True)[
                "input_ids"
            ]
        )
    extra = sum(len(ids) for ids, _ in items(result)[2:4])
    assert result.manifest["parity"] == {
        "turns": {"same": 8, "split-samples": 2, "split-tokens": extra},
        "first": [],
    }
    shown = summary(result)
    assert "parity    8 of 8 trained turns (100.0%) as in serving\n" in shown
    assert f"split     2 samples more, for turns of their own: {extra} tokens\n" in shown


def test_report_counts_and_shows_what_differs(run: Run, tmp_path: Path) -> None:
    result = run(FORGETFUL, THOUGHTS, shard_bytes=1)
    parity = result.manifest["parity"]
    assert parity["turns"] == {"reply": 2, "same": 6}
    assert [(item["file"], item["row"], item["message"], item["kind"]) for item in parity["first"]] == [
        (str(tmp_path / "in.jsonl"), 1, 1, "reply"),
        (str(tmp_path / "in.jsonl"), 1, 5, "reply"),
    ]
    assert parity["first"][0]["training"].startswith("A<|im_end|>")
    assert parity["first"][0]["serving"].startswith("<think>hm</think>A<|im_end|>")
    shown = summary(result).splitlines()
    at = shown.index("parity    6 of 8 trained turns (75.0%) as in serving; differ: 2 reply")
    assert shown[at + 1].endswith("in.jsonl, row 1, message 1: reply")
    assert shown[at + 2].lstrip().startswith("- serving:  '<think>hm</think>A<|im_end|>")
    assert shown[at + 3].lstrip().startswith("+ training: 'A<|im_end|>")
    assert all(row["turn"] is None for row in sources(result))


def test_require_rejects_what_differs(run: Run) -> None:
    result = run(FORGETFUL, THOUGHTS, parity="require")
    assert result.manifest["records"]["rejected_by_reason"] == {"parity": 1}
    (entry,) = rejected(result)
    assert (entry["row"], entry["reason"], entry["field"]) == (1, "parity", "messages[1]")
    assert "<think>hm</think>A<|im_end|>" in entry["expected"]
    assert entry["got"].startswith("'A<|im_end|>")
    assert items(result) == [serving(THOUGHTS[place], CHATML) for place in (0, 2)]


def test_off_does_not_look(run: Run) -> None:
    result = run(FORGETFUL, THOUGHTS, parity="off")
    assert result.manifest["parity"] == {"turns": {}, "first": []}
    assert "parity" not in summary(result)
    assert result.manifest["records"]["kept"] == 3


def test_require_says_what_ends_a_turn_all_the_same(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """The probe's own turns differ from serving; that is no reason to know nothing of them."""
    result = run(ENDS_LAST, PLAIN, parity="require")
    assert [end["special"] for end in result.manifest["turn_ends"]] == [False, True]
    assert not any("refuses" in line for line in logged(caplog))
    assert result.manifest["records"]["rejected_by_reason"] == {"parity": 2}


def test_one_sample_too_long_rejects_the_record_once(run: Run) -> None:
    whole = [len(ids) for ids, _ in items(run(FORGETFUL, THOUGHTS, parity="split"))]
    result = run(FORGETFUL, parity="split", seq_length=max(whole) - 1, overwrite=True)
    counts = result.manifest["records"]
    assert (counts["read"], counts["kept"], counts["rejected"]) == (3, 2, 1)
    assert [entry["row"] for entry in rejected(result)] == [1]
    assert [row["row"] for row in sources(result)] == [0, 2]


# What is refused


def test_the_templates_own_words_reject_a_record(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    result = run(SHORT, PLAIN, shard_bytes=1)
    assert result.manifest["records"]["rejected_by_reason"] == {"template-refused": 2}
    assert [entry["row"] for entry in rejected(result)] == [1, 2]
    assert all(entry["got"] == "TemplateError: one round,\nno more" for entry in rejected(result))
    assert [ids for ids, _ in items(result)] == [serving(PLAIN[0], CHATML)[0]]
    (line,) = logged(caplog)
    assert line.startswith("WARNING: the chat format refuses a plain dialogue of two rounds: ")
    assert line.endswith("TemplateError: one round, no more")
    assert result.manifest["turn_ends"] == []


@pytest.mark.parametrize(("template", "reason"), [(MIXED, "mask-unproven"), (SILENT, "not-rendered")])
def test_a_mask_that_cannot_be_proven_stops_the_run_at_the_start(
    template: str, reason: str, run: Run, tmp_path: Path
) -> None:
    with pytest.raises(TemplateError, match=f"^--chat-template: not for training: {reason} in .*messages"):
        run(template, PLAIN)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "tokenizer"]


#: Ways into Python, and what may come of them at most: they are refused, or write nothing.
ESCAPES = {
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "function": "{{ raise_exception.__globals__ }}",
    "globals": "{{ cycler.__init__.__globals__.os.popen('touch @').read() }}",
    "lipsum": "{{ lipsum.__globals__['os'].system('touch @') }}",
    "attr": "{{ messages | attr('__class__') | attr('__mro__') | first }}",
    "map": "{{ messages | map(attribute='__class__.__mro__') | list }}",
    "format": "{{ '{0.__class__.__mro__}'.format(1) }}",
    "format-map": "{{ '{x.__class__.__mro__}'.format_map(dict(x=1)) }}",
    "namespace": "{{ namespace(__class__=1) }}",
    "include": "{% include '/etc/hostname' %}",
    "import": "{% import 'os' as os %}{{ os }}",
    "mutation": "{{ messages.clear() }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "range": "{% for i in range(10 ** 9) %}x{% endfor %}",
}


@pytest.mark.parametrize("way", ESCAPES)
def test_a_template_does_not_reach_into_python(way: str, run: Run, tmp_path: Path) -> None:
    template = ESCAPES[way].replace("@", str(tmp_path / "touched"))
    result = run(template + CHATML, PLAIN[:1])
    tokenizer: Any = AutoTokenizer.from_pretrained(str(TOKENIZER))
    written = "".join(tokenizer.decode(ids) for ids, _ in items(result))
    assert "class" not in written
    assert rejected(result) or written.startswith("<|im_start|>user\nHi!")
    assert {entry["reason"] for entry in rejected(result)} <= {"template-refused"}
    assert not (tmp_path / "touched").exists()


# What a run says


@pytest.mark.parametrize(
    ("template", "changes", "turns", "remedy", "lacking"),
    [
        pytest.param(
            ENDLESS, {}, "1 and 2", "--append-eod trains one at the end of each sample", 3, id="no-stop"
        ),
        pytest.param(
            ENDLESS, {"append_eod": True}, "1", "--train-on split trains each turn ", 2, id="with-eod"
        ),
        pytest.param(
            ENDS_LAST, {}, "1", "--parity split trains each turn as a last one", 2, id="last-stop"
        ),
    ],
)
def test_turns_that_train_no_stop_are_said(
    template: str,
    changes: dict[str, Any],
    turns: str,
    remedy: str,
    lacking: int,
    run: Run,
    caplog: pytest.LogCaptureFixture,
) -> None:
    result = run(template, PLAIN, **changes)
    line = logged(caplog)[0]
    assert line.startswith(f"WARNING: turn {turns} of a dialogue of 2: no stop token is trained, ")
    assert f"; {remedy}" in line
    # One record of the three has no turn but the last.
    assert result.manifest["records"]["notes"]["stop-not-trained"] == lacking


def test_the_remedy_helps(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    result = run(ENDS_LAST, PLAIN, parity="split")
    assert logged(caplog) == [f"INFO: trained turns end with '<eos>' ({EOS}), which ends generation"]
    assert "stop-not-trained" not in result.manifest["records"]["notes"]
    assert all(labels[-1] == EOS for _, labels in items(result))


def test_a_stop_token_that_is_not_among_the_tokenizers_is_said(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    end = {"id": IM_END, "text": "<|im_end|>", "special": True, "late": False}
    result = run(CHATML, PLAIN)
    assert logged(caplog) == [
        f"WARNING: trained turns end with '<|im_end|>' ({IM_END}); by the tokenizer's folder generation "
        "ends with '<eos>' alone: tell the serving engine to stop there, too"
    ]
    assert result.manifest["turn_ends"] == [{**end, "stops": False}] * 2
    caplog.clear()
    (tmp_path / "tokenizer" / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [EOS, IM_END]})
    )
    result = run(CHATML, overwrite=True)
    assert logged(caplog) == [
        f"INFO: trained turns end with '<|im_end|>' ({IM_END}), which ends generation"
    ]
    assert result.manifest["turn_ends"] == [{**end, "stops": True}] * 2
    assert result.manifest["tokenizer"]["stop_ids"] == [EOS, IM_END]


def test_a_prompt_type_is_looked_at_as_well(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    result = run(None, PLAIN, chat_template=None, prompt_type="gemma")
    assert logged(caplog) == [
        f"INFO: trained turns end with '<eos>' ({EOS}), taught at the next turn's first position, which "
        "ends generation",
        f"INFO: trained turns end with '<eos>' ({EOS}), which ends generation",
    ]
    assert [end["late"] for end in result.manifest["turn_ends"]] == [True, False]


# The date


def on(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Make it another day."""

    class Day(datetime.date):
        @classmethod
        def today(cls) -> Day:
            return cls.fromisoformat(text)

    monkeypatch.setattr(plan.datetime, "date", Day)


def first_line(result: RunResult) -> str:
    tokenizer: Any = AutoTokenizer.from_pretrained(str(TOKENIZER))
    return str(tokenizer.decode(items(result)[0][0])).partition("\n")[0]


def test_a_printed_date_is_said_and_can_be_fixed(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    on(monkeypatch, "2024-07-26")
    result = run(DATED, PLAIN)
    assert first_line(result) == "26 July 2024"
    assert result.manifest["chat_template"]["date"] == "2024-07-26"
    line = logged(caplog)[0]
    assert line.startswith("WARNING: the chat template prints the date: 2024-07-26 it is")
    assert line.endswith("--template-date 2024-07-26")
    caplog.clear()
    again = run(DATED, template_date="2024-07-26", overwrite=True)
    assert not any("date" in line for line in logged(caplog))
    assert again.manifest["files"] == result.manifest["files"]
    assert first_line(run(DATED, template_date="2023-01-02", overwrite=True)) == "02 January 2023"
    assert run(CHATML, overwrite=True).manifest["chat_template"]["date"] is None


class Stopped(BaseException):
    """Stands for a death at a certain point."""


def test_an_interrupted_run_keeps_the_date_that_it_was_started_with(
    run: Run, settings: Callable[..., PreprocessConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise Stopped

    with monkeypatch.context() as interrupted:
        on(interrupted, "2024-07-26")
        interrupted.setattr(finish, "merge_parts", stop)
        with pytest.raises(Stopped):
            run(DATED, PLAIN)
    with monkeypatch.context() as next_day:
        on(next_day, "2024-07-27")
        with pytest.raises(
            OutputError, match=r"chat_template\.date: was \"2024-07-26\", is \"2024-07-28\""
        ):
            run(DATED, template_date="2024-07-28")
        result = run(DATED)
        assert result.reused_parts == 1
        assert first_line(result) == "26 July 2024"
        assert first_line(run(DATED, overwrite=True)) == "27 July 2024"


def test_a_publication_that_is_finished_on_another_day_keeps_its_date(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: Any) -> None:
        raise Stopped

    with monkeypatch.context() as interrupted:
        on(interrupted, "2024-07-26")
        interrupted.setattr(publish, "finish_commit", stop)
        with pytest.raises(Stopped):
            run(DATED, PLAIN)
    on(monkeypatch, "2024-07-27")
    result = run(DATED)
    assert result.manifest["chat_template"]["date"] == "2024-07-26"
    assert first_line(result) == "26 July 2024"


def test_a_restart_has_the_date_of_its_own_day(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise Stopped

    with monkeypatch.context() as interrupted:
        on(interrupted, "2024-07-26")
        interrupted.setattr(finish, "merge_parts", stop)
        with pytest.raises(Stopped):
            run(DATED, PLAIN)
    on(monkeypatch, "2024-07-27")
    assert first_line(run(DATED, restart=True)) == "27 July 2024"


# The manifest


def test_the_manifest_names_the_template(run: Run, tmp_path: Path) -> None:
    found = run(CHATML, PLAIN).manifest["chat_template"]
    assert {name: found[name] for name in ("name", "kwargs", "date")} == {
        "name": "tokenizer", "kwargs": {}, "date": None,
    }  # fmt: skip
    assert found["special_tokens"] == {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    path = tmp_path / "mine.jinja"
    path.write_text(CHATML)
    same = run(None, chat_template=str(path), overwrite=True).manifest["chat_template"]
    assert same == {**found, "name": str(path)}
    path.write_text(CHATML + "\n")
    other = run(None, chat_template=str(path), overwrite=True).manifest["chat_template"]
    assert other["sha256"] != found["sha256"]


def test_the_template_of_deepseek4_is_a_prompt_type(run: Run) -> None:
    thoughts = record("a", "A", "b", "B")
    result = run(None, [thoughts], chat_template=None, prompt_type="deepseek4")
    tokenizer: Any = AutoTokenizer.from_pretrained(str(TOKENIZER))
    ((ids, labels),) = items(result)
    assert tokenizer.decode(ids) == (
        "<bos><｜User｜>a<｜Assistant｜></think>A<｜end▁of▁sentence｜>"
        "<｜User｜>b<｜Assistant｜></think>B<｜end▁of▁sentence｜>"
    )
    trained = tokenizer.decode([label for label in labels if label != -100])
    assert trained == "A<｜end▁of▁sentence｜>B<｜end▁of▁sentence｜>"
    assert result.manifest["chat_template"]["kwargs"] == {"thinking": False}
    flags = {"drop_thinking": "false", "reasoning_effort": "high", "enable_thinking": "true"}
    again = run(None, chat_template=None, prompt_type="deepseek4", overwrite=True, **flags)
    assert again.manifest["chat_template"]["kwargs"] == {
        "thinking": True, "drop_thinking": False, "reasoning_effort": "high",
    }  # fmt: skip
