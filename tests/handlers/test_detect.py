"""``--handler-name auto``: which records are taken for which format, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtsft_preproc.errors import RecordError, SettingsError
from mtsft_preproc.handlers import DialogueHandler, PairHandler, TextHandler, handlers
from mtsft_preproc.handlers import first_records as read_first_records
from mtsft_preproc.handlers.detect import Detected, detect
from mtsft_preproc.readers import find_inputs

ALPACA = "AlpacaStyleInstructionHandler"
ALPACA_PAIR = "AlpacaStylePairwiseHandler"
SHAREGPT = "SharegptStyleInstructionHandler"
SHAREGPT_PAIR = "SharegptStylePairwiseHandler"
OPENAI = "OpenAIInstructionHandler"
BELLE_CHAT = "BelleChatHandler"
BELLE_ROUNDS = "BelleMultiTurnInstructionHandler"
FIREFLY = "FireflyHandler"
CHATGLM = "ChatGLMHandler"
CONVERSATION = "ConversationHandler"
MOSS = "MOSSHandler"
TEXT = "GeneralPretrainHandler"

HISTORY = {"history": "history"}
TOOLS = {"tools": "tools"}
KDCONV = {"messages": "messages", "tags": {"role_tag": "", "content_tag": "message"}}
SGD = {
    "messages": "turns",
    "tags": {
        "role_tag": "speaker",
        "content_tag": "utterance",
        "user_tag": "USER",
        "assistant_tag": "SYSTEM",
    },
}

#: What each file under datasets/ is; None: no records of any format.
DATASETS: dict[str, tuple[str, dict[str, Any]] | None] = {
    "alpaca/alpaca_data_en_52k.json": (ALPACA, {}),
    "alpaca/alpaca_data_zh_9k.json": (ALPACA, {}),
    "belle/belle_10M_readme_examples.json": (BELLE_ROUNDS, {}),
    "belle/belle_train_3.5M_chat_readme_examples.json": (BELLE_CHAT, {}),
    "chatglm/ptuning_chat_example.jsonl": (CHATGLM, {}),
    "disc-finllm/computing_part.json": (ALPACA, HISTORY),
    "disc-finllm/consulting_part.json": (ALPACA, HISTORY),
    "disc-finllm/retrieval_part.json": (ALPACA, HISTORY),
    "disc-finllm/task_part.json": (ALPACA, HISTORY),
    "fastchat/dummy_conversation.json": (SHAREGPT, {}),
    "gpteacher/roleplay-simple-deduped-roleplay-instruct.json": (ALPACA, {"response": "response"}),
    "gpteacher/toolformer-dedupe-only-dataset.json": (ALPACA, {"response": "response"}),
    "kdconv/film_dev.json": (SHAREGPT, KDCONV),
    "kdconv/film_test.json": (SHAREGPT, KDCONV),
    "kdconv/kdconv_sharegpt.json": (SHAREGPT, {}),
    "kdconv/music_dev.json": (SHAREGPT, KDCONV),
    "kdconv/music_test.json": (SHAREGPT, KDCONV),
    "llama-factory/alpaca_en_demo.json": (ALPACA, {}),
    "llama-factory/alpaca_zh_demo.json": (ALPACA, {}),
    "llama-factory/dataset_info.json": None,
    "llama-factory/dpo_zh_demo.json": (SHAREGPT_PAIR, {}),
    "llama-factory/glaive_toolcall_en_demo.json": (SHAREGPT, TOOLS),
    "llama-factory/glaive_toolcall_zh_demo.json": (SHAREGPT, TOOLS),
    "llama-factory/identity.json": (ALPACA, {}),
    "llama-factory/oaast_sft_zh.json": (ALPACA, HISTORY),
    "llama-factory/reason_tool_use_demo_50.jsonl": (OPENAI, {}),
    "llama-factory/v1_sft_demo.jsonl": (OPENAI, {}),
    "medicalgpt/sharegpt_zh_1K_format.jsonl": (SHAREGPT, {}),
    "moss/moss_sample_with_plugins.jsonl": (MOSS, {}),
    "moss/moss_sample_without_plugins.jsonl": (MOSS, {}),
    "mtbench101/mtbench101.jsonl": (FIREFLY, {"conversation": "history"}),
    "sgd/raw/dialogues_001.json": (SHAREGPT, SGD),
    "sgd/raw/schema.json": None,
    "sgd/sgd_train_alpaca_history.json": (ALPACA, HISTORY),
    "sgd/sgd_train_alpaca_history.parquet": (ALPACA, HISTORY),
    "sgd/sgd_train_openai_tools.jsonl": (OPENAI, {}),
}

#: What each file under golden/inputs/ is.
GOLDEN: dict[str, tuple[str, dict[str, Any]] | None] = {
    "alpaca_en.json": (ALPACA, {}),
    "alpaca_hist.json": (ALPACA, HISTORY),
    "alpaca_hist.jsonl": (ALPACA, HISTORY),
    "alpaca_hist_sys.json": (ALPACA, {"history": "history", "system": "system"}),
    "alpaca_histories.parquet": (ALPACA, {"history": "histories"}),
    "alpaca_long.json": (ALPACA, HISTORY),
    "alpaca_pairwise.json": (ALPACA_PAIR, {"history": "history", "system": "system"}),
    "alpaca_think.json": (ALPACA, HISTORY),
    "alpaca_zh.json": (ALPACA, {}),
    "belle_multi.json": (BELLE_ROUNDS, {}),
    "moss.jsonl": (MOSS, {}),
    "oaast_zh.json": (ALPACA, HISTORY),
    "openai_plain.jsonl": (OPENAI, {}),
    "openai_tools.jsonl": (OPENAI, {}),
    "pretrain_c4.jsonl": (TEXT, {}),
    "pretrain_wiki.txt": (TEXT, {}),
    "sgd_histories.parquet": (ALPACA, {"history": "histories"}),
    "sharegpt_pairwise.json": (SHAREGPT_PAIR, {}),
    "sharegpt_plain.json": (SHAREGPT, {}),
    "sharegpt_role.json": (OPENAI, {}),
    "sharegpt_tools.json": (SHAREGPT, TOOLS),
    "edge/belle_bad.jsonl": (BELLE_ROUNDS, {}),
    "edge/dir2/a.json": (ALPACA, {}),
    "edge/dir2/b.json": (ALPACA, {}),
    "edge/empty.jsonl": None,
    "edge/empty_list.json": None,
    "edge/lf/dataset_info.json": None,
    "edge/no_output_column.jsonl": None,
    "edge/sg_tools_bad.jsonl": (SHAREGPT, TOOLS),
    "edge/sg_tools_null.jsonl": (SHAREGPT, TOOLS),
    "edge/system_null.json": (ALPACA, {"system": "system"}),
    "edge/templates_fixed.json": None,
}
#: Those of golden/inputs/edge/ by what they have in common.
GOLDEN |= {f"edge/history_{name}.json": (ALPACA, HISTORY) for name in
           ("dict", "empty_pair", "flat", "null", "null_str", "odd", "string", "triple")}  # fmt: skip
GOLDEN |= {f"edge/oa_{name}.jsonl": (OPENAI, {}) for name in
           ("empty", "null_content", "odd", "start_asst", "sys_only", "tool", "two_asst", "two_user",
            "unknown")}  # fmt: skip
GOLDEN |= {f"edge/sg_{name}.jsonl": (SHAREGPT, {}) for name in
           ("bad_fc", "empty", "empty_value", "fc_end", "fc_list", "first_empty", "null_conv", "null_mid",
            "null_value", "obs", "odd", "ok", "one_msg", "start_gpt", "system_first", "system_mid",
            "system_only", "two_human", "unknown_role")}  # fmt: skip
GOLDEN |= {f"edge/pt_{name}.jsonl": (TEXT, {}) for name in ("empty", "len8", "null", "two")}
GOLDEN |= {f"edge/pw_{name}.jsonl": (ALPACA_PAIR, {}) for name in ("empty", "list", "null")}
GOLDEN |= {f"edge/{name}": (ALPACA, {}) for name in
           ("all_bad_output.json", "all_null_output.json", "blank_lines.jsonl", "bom.json",
            "broken_line.jsonl", "crlf.jsonl", "dup_key.jsonl", "empty_instruction.json",
            "empty_output.json", "extra_cols.jsonl", "gen_empty_output.jsonl", "gen_marker.jsonl",
            "gen_newline.jsonl", "gen_null_input.jsonl", "int_output.jsonl", "list_output.jsonl",
            "missing_some_input.jsonl", "mixed_output.jsonl", "no_input_column.jsonl",
            "null_instruction.json", "null_output.json", "one.json", "special_in_text.json", "table.csv",
            "unicode.json", "whitespace.json")}  # fmt: skip
GOLDEN["edge/long_first_turn.jsonl"] = (ALPACA, HISTORY)
#: Its one record is rejected by the reader, so that there is nothing to look at.
GOLDEN["edge/surrogate.json"] = None
#: The same files once more, beside their dataset_info.json.
GOLDEN |= {f"edge/lf/{name}": GOLDEN[name] for name in
           ("alpaca_en.json", "alpaca_hist.json", "alpaca_hist_sys.json", "alpaca_long.json",
            "alpaca_think.json", "oaast_zh.json", "openai_plain.jsonl", "pretrain_c4.jsonl",
            "sharegpt_pairwise.json", "sharegpt_plain.json", "sharegpt_tools.json")}  # fmt: skip
GOLDEN["edge/lf/long_first_turn.jsonl"] = (ALPACA, HISTORY)

EXPECTED = {
    **{f"datasets/{name}": found for name, found in DATASETS.items()},
    **{f"golden/inputs/{name}": found for name, found in GOLDEN.items()},
}
SUFFIXES = {".json", ".jsonl", ".parquet", ".csv", ".txt"}


def first_records(path: Path, count: int = 100) -> list[dict[str, Any]]:
    """Return the records of a file, or its one object where no reader takes it for records."""
    if path.name in ("dataset_info.json", "empty.jsonl"):
        return [json.loads(path.read_text("utf-8") or "{}")]
    (file,) = find_inputs([str(path)])
    return read_first_records(file, count)


def kept_share(found: Detected, records: list[dict[str, Any]]) -> float:
    """Return the share of records of which the handler that was found can make something."""
    handler = handlers.get(found.handler)(found.map_keys)
    kept = 0
    for record in records:
        try:
            if isinstance(handler, DialogueHandler):
                handler.dialogue(record)
            elif isinstance(handler, PairHandler):
                handler.pair(record)
            else:
                assert isinstance(handler, TextHandler)
                handler.texts(record)
        except RecordError:
            continue
        kept += 1
    return kept / len(records)


def test_every_shared_file_has_its_expectation(shared: Path) -> None:
    present = {
        str(path.relative_to(shared))
        for folder in (shared / "datasets", shared / "golden" / "inputs")
        for path in folder.rglob("*")
        if path.suffix in SUFFIXES
    }
    assert present == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_format_of_a_shared_file(shared: Path, name: str) -> None:
    expected = EXPECTED[name]
    records = first_records(shared / name)
    if expected is None:
        with pytest.raises(SettingsError, match=r"^--handler-name auto: "):
            detect(records)
        return
    found = detect(records)
    assert (found.handler, found.map_keys) == expected


@pytest.mark.parametrize("name", sorted(name for name, found in DATASETS.items() if found))
def test_what_is_found_reads_the_records(shared: Path, name: str) -> None:
    """The lowest share is that of KdConv, of which a third ends on a question."""
    records = first_records(shared / "datasets" / name)
    assert kept_share(detect(records), records) >= 0.6


def chat(*names: str, role: str = "from", text: str = "value") -> list[dict[str, str]]:
    return [{role: name, text: f"says {name}"} for name in names]


TWO = chat("user", "assistant", role="role", text="content")
ROUND = [{"human": "q", "assistant": "a"}]

FOUND: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    # Messages.
    "openai": ({"messages": TWO}, OPENAI, {}),
    "openai-column": ({"dialog": TWO, "id": 7}, OPENAI, {"messages": "dialog"}),
    "openai-tools": ({"messages": TWO, "tools": [{"type": "function"}]}, OPENAI, {}),
    "openai-system": ({"messages": TWO, "system": "S"}, OPENAI, {"system": "system"}),
    "openai-json-text": ({"messages": json.dumps(TWO), "tools": "[]"}, OPENAI, {}),
    "openai-calls-alone": (
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [{}]}]},
        OPENAI,
        {},
    ),
    "openai-beside-a-prompt": ({"prompt": "q", "prompt_id": "x", "messages": TWO}, OPENAI, {}),
    "role-value": (
        {"conversations": chat("user", "assistant", role="role")},
        SHAREGPT,
        {"tags": {"role_tag": "role", "user_tag": "user", "assistant_tag": "assistant"}},
    ),
    "role-of-sharegpt": (
        {"messages": chat("human", "gpt", role="role", text="content")},
        SHAREGPT,
        {"messages": "messages", "tags": {"role_tag": "role", "content_tag": "content"}},
    ),
    "from-content": (
        {"conversations": chat("human", "gpt", text="content")},
        SHAREGPT,
        {"tags": {"content_tag": "content"}},
    ),
    "sharegpt-system-tools": (
        {"conversations": chat("human", "gpt"), "system": "S", "tools": "[]"},
        SHAREGPT,
        {"system": "system", "tools": "tools"},
    ),
    "sharegpt-json-text": ({"conversations": json.dumps(chat("human", "gpt"))}, SHAREGPT, {}),
    "sharegpt-other-names": (
        {"dialogue": chat("system", "Customer", "agent", "tool_call", "tool", "agent")},
        SHAREGPT,
        {
            "messages": "dialogue",
            "tags": {
                "user_tag": "Customer",
                "assistant_tag": "agent",
                "observation_tag": "tool",
                "function_tag": "tool_call",
            },
        },
    ),
    "most-frequent-name": (
        {"conversations": chat("user", "bot", "human", "gpt", "human", "gpt")},
        SHAREGPT,
        {},
    ),
    "belle": ({"conversations": chat("human", "assistant")}, BELLE_CHAT, {}),
    "belle-column": ({"chat": chat("human", "assistant")}, BELLE_CHAT, {"messages": "chat"}),
    "not-belle": (
        {"conversations": chat("system", "human", "assistant")},
        SHAREGPT,
        {"tags": {"assistant_tag": "assistant"}},
    ),
    "the-system-answers": (
        {"turns": chat("user", "system", "user", "system", role="speaker", text="utterance")},
        SHAREGPT,
        {
            "messages": "turns",
            "tags": {
                "role_tag": "speaker",
                "content_tag": "utterance",
                "user_tag": "user",
                "assistant_tag": "system",
                "system_tag": "",
            },
        },
    ),
    "no-roles": (
        {"dialogue": [{"text": "q"}, {"text": "a"}]},
        SHAREGPT,
        {"messages": "dialogue", "tags": {"role_tag": "", "content_tag": "text"}},
    ),
    "conversation-state": (
        {"conversation": [*TWO, {"role": "assistant", "content": "b", "state": {"a": 1}}]},
        CONVERSATION,
        {},
    ),
    "conversation-result": (
        {"conversation": [*TWO, {"role": "tool", "content": "", "result": "r"}], "tools": "[]"},
        CONVERSATION,
        {"tools": "tools"},
    ),
    "conversation-metadata": ({"conversation": TWO, "metadata": {"id": 1}}, CONVERSATION, {}),
    "conversation-null-state": (
        {"conversation": [{**message, "state": None} for message in TWO], "metadata": None},
        OPENAI,
        {"messages": "conversation"},
    ),
    # Rounds.
    "firefly": ({"conversation": ROUND * 2}, FIREFLY, {}),
    "firefly-column": ({"rounds": [{"user": "q", "bot": "a"}]}, FIREFLY, {"conversation": "rounds"}),
    "firefly-questions": (
        {"turns": [{"Question": "q", "Answer": "a"}]},
        FIREFLY,
        {"conversation": "turns"},
    ),
    "firefly-null-padding": (
        {"conversation": [{"human": "q", "assistant": "a", "user": None, "bot": None}]},
        FIREFLY,
        {},
    ),
    "moss": (
        {
            "meta_instruction": "m",
            "chat": {
                "turn_1": {"Human": "<|Human|>: q<eoh>", "MOSS": "<|MOSS|>: a<eom>", "Commands": None},
                "turn_2": None,
            },
        },
        MOSS,
        {},
    ),
    # Rows.
    "alpaca": ({"instruction": "q", "input": "", "output": "a"}, ALPACA, {}),
    "alpaca-no-input": ({"instruction": "q", "output": "a"}, ALPACA, {}),
    "alpaca-question-answer": (
        {"Question": "q", "answer": "a", "id": 3},
        ALPACA,
        {"prompt": "Question", "response": "answer"},
    ),
    "alpaca-prompt-completion": (
        {"prompt": "q", "completion": "a"},
        ALPACA,
        {"prompt": "prompt", "response": "completion"},
    ),
    "alpaca-input-target": (
        {"kind": "k", "input": "q", "target": "a"},
        ALPACA,
        {"prompt": "input", "query": "", "response": "target"},
    ),
    "alpaca-context": (
        {"instruction": "q", "context": "c", "response": "a", "category": "x"},
        ALPACA,
        {"query": "context", "response": "response"},
    ),
    "alpaca-system-prompt": (
        {"system_prompt": "S", "question": "q", "response": "a"},
        ALPACA,
        {"prompt": "question", "response": "response", "system": "system_prompt"},
    ),
    "alpaca-with-prompt-and-response": (
        {"instruction": "q", "response": "a", "prompt": "rendered"},
        ALPACA,
        {"response": "response"},
    ),
    "alpaca-output-of-json": (
        {"instruction": "q", "output": '[{"role": "x", "content": "y"}]'},
        ALPACA,
        {},
    ),
    "alpaca-history-of-objects": (
        {"instruction": "q", "output": "a", "history": [{"user": "q", "bot": "a"}]},
        ALPACA,
        HISTORY,
    ),
    "chatglm": ({"prompt": "q", "response": "a"}, CHATGLM, {}),
    "chatglm-history": ({"prompt": "q", "response": "a", "history": [["q", "a"]]}, CHATGLM, {}),
    "chatglm-with-system": (
        {"prompt": "q", "response": "a", "system": "S", "histories": []},
        CHATGLM,
        {"history": "histories", "system": "system"},
    ),
    "alpaca-prompt-input-response": (
        {"prompt": "q", "input": "more", "response": "a"},
        ALPACA,
        {"prompt": "prompt", "response": "response"},
    ),
    "belle-rounds": (
        {"instruction": "Human:q\nAssistant:a\nHuman:r\nAssistant:", "input": "", "output": "b"},
        BELLE_ROUNDS,
        {},
    ),
    # Pairs.
    "alpaca-pair": ({"instruction": "q", "chosen": "a", "rejected": "b"}, ALPACA_PAIR, {}),
    "alpaca-pair-question": (
        {"system": "S", "question": "q", "chosen": "a", "rejected": "b"},
        ALPACA_PAIR,
        {"prompt": "question", "system": "system"},
    ),
    "sharegpt-pair": (
        {"conversations": chat("human"), "chosen": chat("gpt")[0], "rejected": chat("gpt")[0]},
        SHAREGPT_PAIR,
        {},
    ),
    "sharegpt-pair-openai": (
        {"messages": TWO[:1], "chosen": TWO[1], "rejected": TWO[1]},
        SHAREGPT_PAIR,
        {
            "messages": "messages",
            "tags": {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
            },
        },
    ),
    "sharegpt-pair-of-text": (
        {"conversations": chat("human"), "chosen": "a", "rejected": "b"},
        SHAREGPT_PAIR,
        {},
    ),
    # Text.
    "text": ({"text": "t", "url": "u", "timestamp": 1}, TEXT, {}),
    "content": ({"content": "t", "title": "u"}, TEXT, {}),
    "code": (
        {"code_with_problem": "p", "code_only": "c", "explanation_only": "e"},
        "LeetcodePythonInstructionHandler",
        {},
    ),
    "stack-overflow": (
        {"title": "t", "question_body": "q", "answer_body": "a"},
        "StackOverflowPythonPretrainHandler",
        {},
    ),
}


@pytest.mark.parametrize("case", FOUND)
def test_the_format_of_a_record(case: str) -> None:
    record, handler, map_keys = FOUND[case]
    before = json.dumps(record)
    found = detect([record])
    assert (found.handler, found.map_keys) == (handler, map_keys)
    assert json.dumps(record) == before
    handlers.get(handler)(found.map_keys)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no-fields": ({}, "no records to look at"),
    "no-format": ({"a": 1, "b": "x"}, r"no data format fits.*'a' \(int\), 'b' \(text\)"),
    "no-reply": ({"instruction": "q", "input": ""}, "no data format fits"),
    "tools-alone": ({"tools": [{"name": "f", "description": "d"}]}, r"'name', 'description'"),
    "test-cases": ({"cases": [{"input": "1", "output": "2"}]}, "no data format fits"),
    "passages": ({"passages": [{"text": "a"}, {"text": "b"}]}, "no data format fits"),
    "one-message-without-a-role": ({"messages": [{"text": "a"}]}, "no data format fits"),
    "output-of-objects": ({"instruction": "q", "output": {"a": 1}}, "no data format fits"),
    "number": ({"text": 5}, "no data format fits"),
    "strangers": ({"turns": chat("Ann", "Bob")}, "'Ann', 'Bob': who is the user"),
    "no-assistant": ({"conversations": chat("human", "Bob")}, "'human', 'Bob': who is the user"),
    "equally-frequent": (
        {"conversations": chat("human", "gpt", "user", "assistant")},
        "by 'human' as often as by 'user'",
    ),
    "two-columns-of-messages": (
        {"messages": TWO, "conversations": chat("human", "gpt")},
        "the columns 'messages' and 'conversations' hold messages",
    ),
    "messages-and-row": (
        {"messages": TWO, "instruction": "q", "output": "a"},
        f"{OPENAI} fits: .*; {ALPACA} fits: ",
    ),
    "history-of-messages": (
        {"prompt": "q", "response": "a", "history": TWO},
        "no handler reads 'history' with messages beside 'prompt' and 'response'",
    ),
    "two-questions": ({"prompt": "q", "question": "r", "output": "a"}, "'prompt' and 'question' could be"),
    "two-replies": (
        {"instruction": "q", "answer": "a", "response": "b"},
        "'response' and 'answer' could be",
    ),
    "two-histories": (
        {"instruction": "q", "output": "b", "history": [], "histories": []},
        "'history' and 'histories' could be",
    ),
    "two-texts": ({"text": "a", "content": "b"}, "'text' and 'content' could be"),
    "two-columns-of-rounds": ({"a": ROUND, "b": ROUND}, "the columns 'a' and 'b' hold rounds"),
    "moss-without-marks": (
        {"chat": {"turn_1": {"Human": "q", "MOSS": "a"}}},
        "MOSSInstructionHandler and MOSSMultiTurnHandler",
    ),
    "pair-without-a-prompt": (
        {"text": "t", "chosen": "a", "rejected": "b"},
        "'chosen' and 'rejected' reply to no column",
    ),
    "pairs-of-dialogues": (
        {"prompt": "q", "chosen": TWO, "rejected": TWO, "messages": TWO},
        "'chosen' and 'rejected' hold lists of messages",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_records_that_fit_no_format_or_two_are_refused(case: str) -> None:
    record, reason = REFUSED[case]
    with pytest.raises(SettingsError, match=reason) as caught:
        detect([record])
    message = str(caught.value)
    assert message.startswith("--handler-name auto: ")
    for name in handlers.names():
        assert name in message


def test_no_records_are_refused() -> None:
    with pytest.raises(SettingsError, match="no records to look at"):
        detect([])


def test_a_wide_record_is_described_in_short() -> None:
    with pytest.raises(SettingsError, match=r"'c11' \(int\) and 388 more;"):
        detect([{f"c{number}": number for number in range(400)}])


def test_what_is_not_read_is_said() -> None:
    found = detect([{"instruction": "q", "output": "a", "question": "more", "id": 1, "empty": None}])
    assert found.why == ("the column 'instruction' asks and 'output' replies; not read: 'question', 'id'")
    assert "not read" not in detect([{"instruction": "q", "input": "i", "output": "a"}]).why


def test_a_column_of_text_by_another_name_says_how_it_is_read() -> None:
    assert detect([{"content": "t", "id": 1}]).why == (
        "the column 'content' holds text, for which it takes --json-keys content; not read: 'id'"
    )
    assert detect([{"text": "t"}]).why == "the column 'text' holds text"


def test_speakers_that_the_tags_leave_out_are_said() -> None:
    found = detect([{"conversations": chat("human", "gpt", "human", "gpt", "bot", "Ann")}])
    assert found.why.endswith("'human' asks and 'gpt' answers; unknown speakers: 'bot', 'Ann'")


def test_a_few_records_of_another_shape_do_not_matter() -> None:
    good = {"conversations": chat("human", "gpt")}
    odd = [{"conversations": None}, {"conversations": []}, {"conversations": "text"}, {"conversations": 5}]
    assert detect([*odd, *[good] * 5]).handler == SHAREGPT


def test_only_the_first_hundred_records_are_looked_at() -> None:
    rows = [{"instruction": "q", "output": "a"}] * 100
    assert detect([*rows, {"history": [], "messages": TWO}]).map_keys == {}
    assert detect([*rows[1:], {"instruction": "q", "output": "a", "history": []}]).map_keys == HISTORY


def test_one_belle_record_among_many_alpaca_rows_decides() -> None:
    rows = [{"instruction": "q", "input": "", "output": "a"}] * 99
    assert detect(
        [*rows, {"instruction": "Human: q\nAssistant: ", "input": "", "output": "a"}]
    ).handler == (BELLE_ROUNDS)
    for other in ("Human: q", "Human: q\nAssistant: a", "x Human: q\nAssistant:", "Assistant:"):
        assert detect([*rows, {"instruction": other, "input": "", "output": "a"}]).handler == ALPACA


simple = st.none() | st.booleans() | st.integers() | st.text(max_size=6)
NAMES = (
    "messages conversations role from value content instruction prompt output response history text chosen "
    "rejected chat turn_1 Human MOSS user bot"
)
fields = st.sampled_from(NAMES.split())
values = st.recursive(
    simple,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(fields, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.dictionaries(fields, values, max_size=4), max_size=4))
def test_any_records_give_a_format_or_a_refusal(records: list[dict[str, Any]]) -> None:
    try:
        found = detect(records)
    except SettingsError:
        return
    handlers.get(found.handler)(found.map_keys)
    assert {column for column in found.map_keys.values() if isinstance(column, str) and column} <= {
        name for record in records for name in record
    }
