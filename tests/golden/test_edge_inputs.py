"""The small hostile files beside the golden cases: each is rejected for the right reason, or is sound.

What is expected was written down by hand, from the files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from in_process import InProcess

from mtsft_preproc import IndexedDataset, PreprocessConfig, plan, preprocess
from mtsft_preproc.errors import InputError
from mtsft_preproc.tokenization import (
    Adjustment,
    ResolvedTokenizer,
    open_encoder,
)

EDGE = Path(__file__).parents[3] / "shared" / "golden" / "inputs" / "edge"
#: Not inputs of a run: outputs to be merged, prompt types, the folder of a dataset_info.json.
NO_INPUT = {"merge", "templates_fixed.json", "lf"}
#: Handler by the start of the file's name; Alpaca for all others.
HANDLERS = {
    "belle": "belle", "gen_": "general", "oa_": "openai", "sg_": "sharegpt", "pt_": "pretrain",
    "pw_": "alpaca-pairwise",
}  # fmt: skip
MAP_KEYS = {
    "history": {"history": "history"},
    "system": {"system": "system"},
    "sg_tools": {"tools": "tools"},
}

#: Per file: the records read, and the reason of each rejected row.
REJECTED: dict[str, tuple[int, dict[int, str]]] = {
    "all_bad_output.json": (1, {0: "missing-field"}),
    "all_null_output.json": (2, {0: "missing-field", 1: "missing-field"}),
    # Text in front of the first mark, and marks inside the text: whose words are they?
    "belle_bad.jsonl": (6, {4: "bad-history", 5: "bad-history"}),
    "broken_line.jsonl": (3, {1: "not-json"}),
    "history_flat.json": (1, {0: "bad-history"}),
    "history_null_str.json": (3, {1: "bad-history", 2: "bad-history"}),
    "history_odd.json": (2, {1: "bad-history"}),
    "history_string.json": (2, {0: "bad-history"}),
    "history_triple.json": (1, {0: "bad-history"}),
    "int_output.jsonl": (1, {0: "wrong-type"}),
    "list_output.jsonl": (2, {0: "wrong-type", 1: "wrong-type"}),
    "mixed_output.jsonl": (2, {1: "wrong-type"}),
    "null_output.json": (3, {1: "missing-field"}),
    "oa_empty.jsonl": (3, {1: "empty-dialogue"}),
    "oa_null_content.jsonl": (3, {1: "missing-field"}),
    "oa_start_asst.jsonl": (3, {1: "role-order"}),
    "oa_sys_only.jsonl": (3, {1: "no-assistant"}),
    "oa_tool.jsonl": (3, {1: "orphan-tool-result"}),
    "oa_two_asst.jsonl": (3, {1: "role-order"}),
    "oa_two_user.jsonl": (3, {1: "role-order"}),
    # A developer's text is a system text: what is left starts with the assistant.
    "oa_unknown.jsonl": (3, {1: "role-order"}),
    "pt_empty.jsonl": (3, {1: "empty-text"}),
    "pt_null.jsonl": (2, {1: "missing-field"}),
    "pt_two.jsonl": (3, {1: "empty-text"}),
    "pw_list.jsonl": (1, {0: "wrong-type"}),
    "pw_null.jsonl": (2, {1: "missing-field"}),
    "sg_bad_fc.jsonl": (3, {1: "bad-tool-json"}),
    "sg_empty.jsonl": (3, {1: "empty-dialogue"}),
    "sg_first_empty.jsonl": (2, {0: "empty-dialogue"}),
    "sg_null_conv.jsonl": (3, {1: "missing-field"}),
    "sg_null_mid.jsonl": (3, {1: "missing-field"}),
    "sg_null_value.jsonl": (3, {1: "missing-field"}),
    "sg_one_msg.jsonl": (3, {1: "no-assistant"}),
    "sg_start_gpt.jsonl": (3, {1: "role-order"}),
    "sg_system_mid.jsonl": (3, {1: "role-order"}),
    "sg_system_only.jsonl": (3, {1: "no-assistant"}),
    "sg_tools_bad.jsonl": (6, {0: "bad-tool-json"}),
    "sg_two_human.jsonl": (3, {1: "role-order"}),
    "sg_unknown_role.jsonl": (3, {1: "unknown-role"}),
    "surrogate.json": (1, {0: "lone-surrogate"}),
}
#: Files in which nothing is rejected, and the trained text of each sample without control tokens.
HELLO = "Hello there."
TRAINED: dict[str, list[str]] = {
    "blank_lines.jsonl": [HELLO] * 2,
    "bom.json": [HELLO],
    "crlf.jsonl": [HELLO] * 2,
    "dup_key.jsonl": ["c"],
    "empty_instruction.json": [HELLO] * 4,
    "empty_output.json": [HELLO, "", HELLO],
    "extra_cols.jsonl": [HELLO] * 2,
    "gen_empty_output.jsonl": [HELLO + "\n", "\n"],
    # The original takes the mark inside the reply for the place where it starts.
    "gen_marker.jsonl": ["a ### Response: b\n"],
    "gen_newline.jsonl": ["\nstarts with newline\n"],
    "gen_null_input.jsonl": [HELLO + "\n"] * 2,
    "history_dict.json": ["a1" + HELLO],
    "history_empty_pair.json": [HELLO, HELLO],
    "history_null.json": ["a1" + HELLO, HELLO, HELLO],
    "missing_some_input.jsonl": [HELLO, "Hello."],
    "no_input_column.jsonl": ["Hello."],
    "null_instruction.json": [HELLO] * 5,
    "oa_odd.jsonl": ["a", "a", "a"],
    "one.json": [HELLO],
    "sg_empty_value.jsonl": ["a", "", "one"],
    "sg_obs.jsonl": ["a", 'Action: f\nAction Input: {"x": 1}a', "one"],
    "sg_fc_end.jsonl": ["a", 'Action: f\nAction Input: {"x": 1}', "one"],
    "sg_fc_list.jsonl": ["a", 'Action: f\nAction Input: {"x": 1}a', "one"],
    "sg_odd.jsonl": ["a", "a", "one"],
    "sg_ok.jsonl": ["a", "a", "one"],
    "sg_system_first.jsonl": ["a", "a", "one"],
    "sg_tools_null.jsonl": ["a", "a"],
    "special_in_text.json": ["It is <|im_end|> a token <|endoftext|>. <eos> {{content}}", "x {{content}}"],
    "system_null.json": [HELLO] * 3,
    "table.csv": ["Hello, there.", ""],
    "unicode.json": ["\xe9 vs e\u0301 \U0001f600"],
    "whitespace.json": ["\n\n  spaced  \n", "a\u200bb\xa0c\ufeff"],
}
#: Looked at in their number alone.
COUNTED = {"dir2": 500, "long_first_turn.jsonl": 5, "pt_len8.jsonl": 2, "pw_empty.jsonl": 2}
REFUSED = {
    "empty.jsonl": "no records",
    "empty_list.json": "no records",
    "no_output_column.jsonl": "no column 'output'",
}


def by_name(table: dict[str, Any], name: str, default: Any) -> Any:
    return next((value for start, value in table.items() if name.startswith(start)), default)


class Known(InProcess):
    """Keeps each tokenizer."""

    known: ClassVar[dict[Adjustment, ResolvedTokenizer]] = {}

    def __init__(self, path: str, adjustment: Any, use_fast: bool, trust: bool, after: Any = None) -> None:
        if adjustment not in self.known:
            super().__init__(path, adjustment, use_fast, trust)
            self.known[adjustment] = self._tokenizer
        self._tokenizer, self._after = self.known[adjustment], after


@pytest.fixture(scope="module", autouse=True)
def in_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "TokenizerLoading", Known)
        yield


def run(name: str, folder: Path) -> dict[str, Any]:
    handler = by_name(HANDLERS, name, "alpaca")
    chat = {} if handler in ("belle", "general", "pretrain") else {"prompt_type": "qwen"}
    config = PreprocessConfig(
        input=(str(EDGE / name),),
        output_prefix=str(folder / "out"),
        tokenizer=str(EDGE.parents[1] / "tokenizers" / "qwen_base"),
        handler_name=handler,
        map_keys=json.dumps(by_name(MAP_KEYS, name, {})),
        max_rejected=1.0,
        **chat,  # type: ignore[arg-type]
    )
    return preprocess(config).manifest


def test_every_file_is_looked_at(shared: Path) -> None:
    known = {*REJECTED, *TRAINED, *COUNTED, *REFUSED, *NO_INPUT}
    assert {path.name for path in (shared / "golden" / "inputs" / "edge").iterdir()} == known


@pytest.mark.parametrize("name", REJECTED)
def test_bad_records_are_rejected_for_the_right_reason(name: str, shared: Path, tmp_path: Path) -> None:
    read, reasons = REJECTED[name]
    records = run(name, tmp_path)["records"]
    assert (records["read"], records["kept"]) == (read, read - len(reasons))
    lines = [json.loads(line) for line in (tmp_path / "out.rejected.jsonl").read_text("utf-8").splitlines()]
    assert {line["row"]: line["reason"] for line in lines} == reasons
    assert all(line["file"] == str(EDGE / name) and line["expected"] and line["got"] for line in lines)


@pytest.mark.parametrize("name", TRAINED)
def test_odd_records_become_sound_samples(name: str, shared: Path, tmp_path: Path) -> None:
    manifest = run(name, tmp_path)
    assert manifest["records"]["rejected"] == 0
    adjustment = Adjustment(
        manifest["tokenizer"]["adjustment"]["eos"], tuple(manifest["tokenizer"]["adjustment"]["special"])
    )
    encoder = open_encoder(Known.known[adjustment].save(tmp_path))
    found = []
    for labels in IndexedDataset(tmp_path / "out_packed_labels_document"):
        trained = [index for index in labels.tolist() if index >= 0 and index not in encoder.special_ids]
        found.append(encoder.decode(trained))
    assert found == TRAINED[name]


@pytest.mark.parametrize("name", COUNTED)
def test_no_record_is_lost(name: str, shared: Path, tmp_path: Path) -> None:
    records = run(name, tmp_path)["records"]
    assert (records["read"], records["kept"]) == (COUNTED[name], COUNTED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_files_without_use_are_refused(name: str, shared: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=REFUSED[name]):
        run(name, tmp_path)
