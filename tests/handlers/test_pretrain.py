"""Text documents: columns as they stand, and texts that are written from the fields of a record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mtsft_preproc.errors import InputError, RecordError, SettingsError
from mtsft_preproc.handlers import HandlerOptions, TextHandler, check_columns, handlers
from mtsft_preproc.handlers.pretrain import (
    AlpacaPretrainHandler,
    GeneralPretrainHandler,
    SharegptPretrainHandler,
    StackOverflowHandler,
)
from mtsft_preproc.readers import InputFile, find_inputs


def outcome(handler: TextHandler, record: dict[str, Any]) -> list[str] | tuple[str, str]:
    try:
        return handler.texts(record)
    except RecordError as error:
        found = error
    assert found.expected
    assert found.got
    return found.reason, found.field


def lines_file(folder: Path, *records: Any) -> InputFile:
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    (found,) = find_inputs([str(path)])
    return found


def general(*keys: str) -> GeneralPretrainHandler:
    return GeneralPretrainHandler(options=HandlerOptions(json_keys=keys))


def test_columns_are_taken_as_they_stand() -> None:
    handler = general("title", "text")
    assert handler.texts({"text": " a\n\n", "title": "", "other": 1}) == ["", " a\n\n"]
    assert handler.datasets() == ["title", "text"]
    assert GeneralPretrainHandler().datasets() == ["text"]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"text": None}, ("missing-field", "text")),
        ({}, ("missing-field", "text")),
        ({"text": 1}, ("wrong-type", "text")),
        ({"text": ["a"]}, ("wrong-type", "text")),
    ],
)
def test_a_column_without_text_is_rejected(record: dict[str, Any], expected: tuple[str, str]) -> None:
    assert outcome(GeneralPretrainHandler(), record) == expected


def test_the_odd_rows_of_the_golden_files_of_documents(shared: Path) -> None:
    found = {}
    for name in ("pt_empty", "pt_null"):
        lines = (shared / "golden" / "inputs" / "edge" / f"{name}.jsonl").read_text("utf-8").splitlines()
        found[name] = [outcome(GeneralPretrainHandler(), json.loads(line)) for line in lines]
    assert found == {
        "pt_empty": [["abc"], [""], ["def"]], "pt_null": [["abc"], ("missing-field", "text")]
    }  # fmt: skip


@pytest.mark.parametrize("kind", [GeneralPretrainHandler, SharegptPretrainHandler])
def test_the_columns_of_json_keys_must_be_there(
    tmp_path: Path, kind: type[GeneralPretrainHandler | SharegptPretrainHandler]
) -> None:
    file = lines_file(tmp_path, {"text": "a", "title": "b"})
    check_columns(kind(options=HandlerOptions(json_keys=("text", "title"))), [file])
    with pytest.raises(InputError, match="no column 'texts'"):
        check_columns(kind(options=HandlerOptions(json_keys=("text", "texts"))), [file])
    # What one handler needs is no matter of the next.
    assert kind.required == ()
    check_columns(kind(), [file])


@pytest.mark.parametrize("kind", [GeneralPretrainHandler, SharegptPretrainHandler])
@pytest.mark.parametrize("keys", [(), ("a", "a"), ("a", "")], ids=["none", "twice", "empty"])
def test_json_keys_that_name_no_columns_are_refused(kind: type[TextHandler], keys: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match="--json-keys"):
        kind(options=HandlerOptions(json_keys=keys))


@pytest.mark.parametrize("kind", [GeneralPretrainHandler, SharegptPretrainHandler])
def test_map_keys_name_no_columns_of_documents(kind: type[TextHandler]) -> None:
    with pytest.raises(SettingsError, match="named by --json-keys"):
        kind({"text": "content"})
    with pytest.raises(SettingsError, match=r"unknown tag|has none"):
        kind({"tags": {"role": "x"}})


INTRODUCTION = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions.USER: Below is an instruction that describes a "
    "task. Write a response that appropriately completes the request.\n\n"
)


@pytest.mark.parametrize(
    ("given_input", "further"),
    [("b {x}", "### Input:\nb {x}\n\n"), ("", "###None\n\n"), (None, "###None\n\n")],
    ids=["input", "empty", "null"],
)
def test_alpaca_rows_as_text(given_input: Any, further: str) -> None:
    handler = AlpacaPretrainHandler()
    record = {"instruction": "a {instruction}", "input": given_input, "output": "c {}"}
    assert handler.texts(record) == [
        f"{INTRODUCTION}### Instruction:\na {{instruction}}\n\n{further}### Response: ASSISTANT: c {{}}"
    ]
    assert handler.datasets() == ["text"]
    assert outcome(handler, {**record, "output": None}) == ("missing-field", "output")
    assert outcome(handler, {**record, "instruction": None}) == ("missing-field", "instruction")
    assert outcome(handler, {**record, "input": 1}) == ("wrong-type", "input")


def sharegpt(map_keys: dict[str, Any] | None = None) -> SharegptPretrainHandler:
    return SharegptPretrainHandler(map_keys, HandlerOptions(json_keys=("talk",)))


def test_messages_stand_one_behind_the_other() -> None:
    messages = [{"from": "system", "value": "S"}, {"from": "human", "value": " q\n"}, {"value": ""}]
    assert sharegpt().texts({"talk": messages}) == ["S q\n"]
    assert sharegpt().texts({"talk": json.dumps(messages)}) == ["S q\n"]
    assert sharegpt().datasets() == ["talk"]
    tagged = sharegpt({"tags": {"content_tag": "content"}})
    assert tagged.texts({"talk": [{"content": "a"}, {"content": "b"}]}) == ["ab"]
    with pytest.raises(SettingsError, match="the field with the text"):
        sharegpt({"tags": {"content_tag": ""}})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ("missing-field", "talk")),
        ("x", ("wrong-type", "talk")),
        ({"value": "x"}, ("wrong-type", "talk")),
        ([], ("empty-dialogue", "talk")),
        (["x"], ("wrong-type", "talk[0]")),
        ([{"value": "a"}, {"value": None}], ("missing-field", "talk[1].value")),
        ([{"from": "human"}], ("missing-field", "talk[0].value")),
        ([{"value": 1}], ("wrong-type", "talk[0].value")),
    ],
)
def test_what_is_no_list_of_messages_is_rejected(value: Any, expected: tuple[str, str]) -> None:
    assert outcome(sharegpt(), {"talk": value}) == expected


def test_questions_about_python() -> None:
    handler = StackOverflowHandler({"title": "t"})
    record = {"t": "how?", "question_body": "q", "answer_body": "a\n"}
    expected = "In python, how?\n### Question:\nq\n### Response:\na\n\n"
    assert (handler.texts(record), handler.datasets()) == ([expected], ["text"])
    for field in record:
        assert outcome(handler, {**record, field: None}) == ("missing-field", field)


@pytest.mark.parametrize(
    ("name", "full", "kind"),
    [
        ("pretrain", "GeneralPretrainHandler", GeneralPretrainHandler),
        ("alpaca-pretrain", "AlpacaPretrainHandler", AlpacaPretrainHandler),
        ("sharegpt-pretrain", "SharegptPretrainHandler", SharegptPretrainHandler),
        ("stackoverflow", "StackOverflowPythonPretrainHandler", StackOverflowHandler),
    ],
)
def test_the_handlers_of_documents_are_known_under_their_names(
    name: str, full: str, kind: type[TextHandler]
) -> None:
    assert handlers.get(name) is kind
    assert handlers.canonical(name) == full
    assert kind.objective == "text"
