"""Datasets against their inputs: what is equal is found equal, what was changed is found and named."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import os
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from arranged import IGNORED, TOKENIZER, dialogues, items_of, make, manifest_of, repacked, rows_of, write
from damage import reseal
from in_process import LoadedOnce

from mtsft_preproc import plan
from mtsft_preproc.dialogue import Record, Rejection
from mtsft_preproc.errors import DamagedFileError, DatasetError, InputError, MtsftError, TokenizerError
from mtsft_preproc.handlers import handlers
from mtsft_preproc.inspection import check_against, tokenizer
from mtsft_preproc.inspection.reencoding import Against, records_at
from mtsft_preproc.join import join
from mtsft_preproc.ledger import row_groups
from mtsft_preproc.readers import find_inputs, parquet

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in (plan, tokenizer):
        monkeypatch.setattr(module, "TokenizerLoading", LoadedOnce)
    names = set(handlers.names())
    yield
    for name in set(handlers.names()) - names:
        handlers.discard(name)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Dialogues, and two records that are rejected: of one the reader says why, of one the handler."""
    return write(
        tmp_path / "in.jsonl", [*dialogues(12), "no json", "", {"instruction": "x"}, *dialogues(8, 50)]
    )


def against(prefix: Path, **changes: Any) -> Against:
    """Compare all of a dataset."""
    return check_against(str(prefix), **{"samples": 0, **changes})


def older(path: Path, than: Path) -> None:
    """Let a file have been written before another."""
    time = than.stat().st_mtime_ns - 10**9
    os.utime(path, ns=(time, time))


def change(prefix: Path, field: str, item: int, place: int, value: int) -> None:
    """Change one token of a dataset in place."""
    base = prefix.with_name(f"{prefix.name}_packed_{field}_document")
    index = base.with_name(base.name + ".idx").read_bytes()
    count = int.from_bytes(index[18:26], "little")
    start = int(np.frombuffer(index, "<i8", count, 34 + 4 * count)[item]) + 4 * place
    with open(base.with_name(base.name + ".bin"), "r+b") as file:
        file.seek(start)
        file.write(int(value).to_bytes(4, "little", signed=True))


def row_ids(prefix: Path, item: int) -> list[int]:
    """The ids of an item."""
    return items_of(prefix, "input_ids")[item].tolist()


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "packs": {"pack": True, "seq_length": 192},
    "neat packs": {
        "pack": True,
        "seq_length": 192,
        "neat_pack": True,
        "pad_to_multiple_of": 8,
        "shuffle": True,
    },
    "split": {"train_on": "split"},
    "window": {"overlong": "window", "seq_length": 70},
    "recent, packed": {"overlong": "recent", "seq_length": 70, "pack": True},
    "right": {"overlong": "right", "seq_length": 50},
    "late stops": {"prompt_type": "gemma", "append_eod": True},
    "full": {"train_on": "full", "ignore_index": -7},
    "dropped": {"seq_length": 60},
    "no duplicates": {"dedup": "exact", "keep_columns": ("instruction",)},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_what_a_run_made_is_what_its_input_becomes(name: str, data: Path, tmp_path: Path) -> None:
    prefix = make(data, tmp_path / "out" / "a", **SETTINGS[name])
    found = against(prefix)
    assert found.findings == []
    assert found.ok
    rows = rows_of(prefix)
    assert found.samples == len(rows)
    assert found.records == len({row["row"] for row in rows})
    assert found.rejections == manifest_of(prefix)["records"]["rejected"] >= 2


def test_a_chat_template_and_its_date(data: Path, tmp_path: Path) -> None:
    template = tmp_path / "t.jinja"
    template.write_text("{{ strftime_now('%Y') }}" + TEMPLATE)
    prefix = make(
        data, tmp_path / "out" / "a",
        prompt_type=None, chat_template=str(template), template_date="2001-02-03",
    )  # fmt: skip
    assert against(prefix).findings == []
    template.write_text("{{ strftime_now('%y') }}" + TEMPLATE)
    with pytest.raises(MtsftError, match=r"chat format .* is not the one .*: sha256"):
        against(prefix)


@pytest.mark.parametrize("settings", [{}, {"pack": True, "seq_length": 192, "neat_pack": True}])
@pytest.mark.parametrize("field", ["input_ids", "labels", "attention_mask"])
def test_one_changed_token_is_found(
    field: str, settings: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    prefix = make(data, tmp_path / "out" / "a", **settings)
    row = rows_of(prefix)[5]
    change(prefix, field, row["item"], row["offset"] + 9, 17)
    found = against(prefix)
    [line] = found.findings
    assert (found.differences, found.ok) == (1, False)
    assert line.startswith(
        f"{prefix}_packed_{field}_document.bin: item {row['item']}, offset {row['offset']} "
    )
    assert f"({data}, row {row['row']}): token 9 of {row['length']} is 17" in line
    assert line.endswith("(1 differ)")


def test_a_label_that_is_not_trained_any_more(data: Path, tmp_path: Path) -> None:
    prefix = make(data, tmp_path / "out" / "a")
    row = rows_of(prefix)[3]
    change(prefix, "labels", row["item"], row["length"] - 1, IGNORED)
    [line] = against(prefix).findings
    end = "<|im_end|>"
    index = row_ids(prefix, row["item"])[-1]
    assert line.endswith(
        f"token {row['length'] - 1} of {row['length']} is -100 (not trained), encoded again {index} "
        f"{end!r} (1 differ)"
    )


def test_a_sidecar_and_a_ledger_that_say_something_else(data: Path, tmp_path: Path) -> None:
    prefix = make(data, tmp_path / "out" / "a")
    table = pq.read_table(f"{prefix}.sources.parquet")
    trained = table["trained"].to_pylist()
    place = table.schema.get_field_index("trained")
    trained[4] += 1
    table = table.set_column(place, table.schema.field(place), pa.array(trained, pa.int32()))
    pq.write_table(table, f"{prefix}.sources.parquet")
    ledger = Path(f"{prefix}.rejected.jsonl")
    ledger.write_text(ledger.read_text().replace("not-json", "not-sane"))
    manifest = manifest_of(prefix)
    for path in (ledger, Path(f"{prefix}.sources.parquet")):
        manifest["files"][path.name]["bytes"] = path.stat().st_size
    Path(f"{prefix}.manifest.json").write_text(json.dumps(manifest))
    one, two = against(prefix).findings
    assert f"{prefix}.sources.parquet: item 4, offset 0 ({data}, row 4): trained {trained[4]}" in one
    assert one.endswith(f"encoded again {trained[4] - 1}")
    assert two == f"{ledger}: line 1 ({data}, row 12): rejected as 'not-sane', now 'not-json'"


def test_a_sample_that_the_dataset_lacks(data: Path, tmp_path: Path) -> None:
    prefix = make(data, tmp_path / "out" / "a", train_on="split")
    path = Path(f"{prefix}.sources.parquet")
    table = pq.read_table(path)
    keep = [row for row in range(len(table)) if row != 1]
    lost = table.to_pylist()[1]
    pq.write_table(table.take(pa.array(keep)), path)
    manifest = manifest_of(prefix)
    manifest["files"][path.name]["bytes"] = path.stat().st_size
    Path(f"{prefix}.manifest.json").write_text(json.dumps(manifest))
    [line] = against(prefix).findings
    assert f"row {lost['row']}: encoded again, it has a sample for turn {lost['turn']} that" in line


class TestInputs:
    """Files that are gone, moved or changed."""

    def test_a_changed_input_is_told(self, data: Path, tmp_path: Path) -> None:
        prefix = make(data, tmp_path / "out" / "a")
        text = data.read_text()
        data.write_text(text + "\n")
        with pytest.raises(
            InputError, match=rf"in.jsonl: changed since .* {len(text) + 1} bytes, the mani.* {len(text)}"
        ):
            against(prefix)
        data.write_text(text.replace("answer 3", "answer 4"))
        manifest = Path(f"{prefix}.manifest.json")
        os.utime(data, ns=(manifest.stat().st_mtime_ns + 10**9,) * 2)
        with pytest.raises(InputError, match=r"in.jsonl: changed since .* sha256"):
            against(prefix)
        # Neither size nor time tell: what comes out does, and then the reason is looked for.
        older(data, manifest)
        with pytest.raises(InputError, match=r"in.jsonl: changed since .* sha256"):
            against(prefix)
        found = Against()
        with pytest.raises(InputError):
            against(prefix, report=found)
        assert (found.differences, found.findings) == (0, [])  # that is no fault of the dataset's
        assert found.samples > 0

    def test_what_was_found_before_an_input_is_missed_is_kept(self, tmp_path: Path) -> None:
        one, two = write(tmp_path / "a.jsonl", dialogues(5)), write(tmp_path / "b.jsonl", dialogues(5, 20))
        prefix = make(one, tmp_path / "out" / "a", input=(str(one), str(two)))
        path = Path(f"{prefix}_packed_labels_document.bin")
        labels = np.fromfile(path, np.int32)
        labels[np.flatnonzero(labels != IGNORED)[0]] += 1
        labels.tofile(path)
        two.unlink()
        found = Against()
        with pytest.raises(InputError, match="no such file"):
            against(prefix, report=found)
        assert found.differences == len(found.findings) > 0

    def test_an_input_that_is_gone_or_moved(self, data: Path, tmp_path: Path) -> None:
        prefix = make(data, tmp_path / "out" / "a", handler_name="auto")
        moved = tmp_path / "elsewhere" / "in.jsonl"
        moved.parent.mkdir()
        shutil.move(data, moved)
        with pytest.raises(InputError, match=rf"{data}: no such file; the dataset was made of it"):
            against(prefix)
        assert against(prefix, inputs=[str(moved)]).ok
        assert against(prefix, inputs=[str(moved.parent)]).ok
        moved.rename(moved.with_name("other.jsonl"))
        assert against(prefix, inputs=[str(moved.with_name("other.jsonl"))]).ok
        with pytest.raises(InputError, match=r"made of 1 files .in.jsonl.; expected as many"):
            against(prefix, inputs=[str(moved.with_name("other.jsonl"))] * 2)

    def test_two_inputs_by_name_and_by_order(self, tmp_path: Path) -> None:
        one, two = write(tmp_path / "a.jsonl", dialogues(5)), write(tmp_path / "b.jsonl", dialogues(7, 20))
        prefix = make(one, tmp_path / "out" / "a", input=(str(one), str(two)))
        (tmp_path / "new").mkdir()
        for path in (one, two):
            shutil.move(path, tmp_path / "new" / path.name)
        new = [str(tmp_path / "new" / name) for name in ("b.jsonl", "a.jsonl")]
        assert against(prefix, inputs=new).ok
        other = [str(shutil.move(path, f"{path}.jsonl")) for path in reversed(new)]
        assert against(prefix, inputs=other).ok
        with pytest.raises(InputError, match="changed since"):
            against(prefix, inputs=other[::-1])


def test_a_tokenizer_that_is_gone_or_another(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    shutil.copytree(TOKENIZER, folder)
    prefix = make(data, tmp_path / "out" / "a", tokenizer=str(folder))
    assert against(prefix).ok
    content = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    content["model"]["merges"].pop()
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(TokenizerError, match=r"not the tokenizer that the dataset was made with .sha256"):
        against(prefix)
    shutil.rmtree(folder)
    with pytest.raises(TokenizerError, match="does not exist"):
        against(prefix)


def test_a_handler_of_another_state_is_not_run(data: Path, tmp_path: Path) -> None:
    code = (
        "from mtsft_preproc.handlers import Dialogue, DialogueHandler, Message, Role, handler\n"
        "from mtsft_preproc.handlers import needed_text\n"
        '@handler("again")\n'
        "class Own(DialogueHandler):\n"
        '    keys = {"instruction": "instruction", "output": "output"}\n'
        '    required = (("instruction",),)\n'
        "    def dialogue(self, record):\n"
        "        ask, say = (needed_text(record, self.columns, key) for key in self.keys)\n"
        "        return Dialogue([Message(Role.USER, ask), Message(Role.ASSISTANT, say)])\n"
    )
    own = tmp_path / "own.py"
    own.write_text(code)
    prefix = make(data, tmp_path / "out" / "a", handler_path=str(own), handler_name="again", map_keys="{}")
    assert against(prefix).ok
    marker = tmp_path / "was_run"
    own.write_text(code + f"open({str(marker)!r}, 'w')\n")
    with pytest.raises(InputError, match=r"own\.py: not the file that the dataset was made with"):
        against(prefix)
    assert not marker.exists()


class TestKinds:
    """Datasets of other objectives."""

    def test_pairs(self, tmp_path: Path) -> None:
        records = [
            {
                "instruction": f"ask {at}",
                "input": "",
                "chosen": f"good {at}",
                "rejected": f"bad {at} " * (at + 1),
            }
            for at in range(6)
        ]
        prefix = make(
            write(tmp_path / "p.jsonl", records), tmp_path / "out" / "a",
            handler_name="alpaca-pairwise", map_keys="{}",
        )  # fmt: skip
        assert against(prefix).ok
        change(prefix, "rejected_labels", 3, 0, 5)
        [line] = against(prefix).findings
        assert "packed_rejected_labels_document.bin: item 3, offset 0" in line

    def test_prompts(self, tmp_path: Path) -> None:
        records = [
            {"instruction": f"ask {at}", "input": "", "output": f"so {at}", "why": f"as {at}"}
            for at in range(5)
        ]
        prefix = make(
            write(tmp_path / "p.jsonl", records), tmp_path / "out" / "a",
            handler_name="alpaca-r1", map_keys="{}", dataset_additional_keys=("labels", "why"),
        )  # fmt: skip
        assert against(prefix).ok
        change(prefix, "why", 2, 0, 5)
        [line] = against(prefix).findings
        assert "packed_why_document.bin: item 2, offset 0" in line

    def test_text_documents_with_empty_keys(self, tmp_path: Path) -> None:
        records = [
            {"text": "" if at % 3 == 1 else f"text {at} " * at, "note": "" if at == 5 else f"note {at}"}
            for at in range(1, 9)
        ]
        prefix = make(
            write(tmp_path / "d.jsonl", records), tmp_path / "out" / "a",
            handler_name="pretrain", prompt_type=None, json_keys=("text", "note"), map_keys="{}",
            append_eod=True,
        )  # fmt: skip
        found = against(prefix)
        assert found.findings == []
        # Of the second key, the sidecar doesn't tell which documents lack it.
        assert [line for line in found.unchecked if "no text for 'note'" in line]
        path = Path(f"{prefix}_text_document.bin")
        raw = bytearray(path.read_bytes())
        raw[-4:] = (5).to_bytes(4, "little")
        path.write_bytes(raw)
        [line] = against(prefix).findings
        assert f"{path}: item 7, offset 0" in line


class TestMadeOfOthers:
    """Merged and repacked datasets, with and without those that they were made of."""

    @pytest.fixture
    def parts(self, tmp_path: Path) -> list[Path]:
        """Two datasets with other settings for single records."""
        one = make(write(tmp_path / "a.jsonl", dialogues(12)), tmp_path / "parts" / "one")
        two = make(
            write(tmp_path / "b.jsonl", [*dialogues(8, 40), {"instruction": "no reply"}]),
            tmp_path / "parts" / "two", empty_reply="reject",
        )  # fmt: skip
        return [one, two]

    def test_merged(self, parts: list[Path], tmp_path: Path) -> None:
        both = tmp_path / "both" / "a"
        both.parent.mkdir()
        join([str(part) for part in parts], str(both))
        found = against(both)
        assert (found.findings, found.samples, found.rejections) == ([], 20, 1)
        shutil.rmtree(parts[0].parent)
        # --empty-reply is not the same in both, so that the manifest doesn't tell it.
        with pytest.raises(DatasetError, match="tells no empty_reply: the datasets that it was made of"):
            against(both)

    def test_merged_of_equal_settings(self, tmp_path: Path) -> None:
        parts = [
            make(write(tmp_path / f"{at}.jsonl", dialogues(5, 9 * at)), tmp_path / "parts" / str(at))
            for at in range(2)
        ]
        both = tmp_path / "both"
        join([str(part) for part in parts], str(both))
        shutil.rmtree(tmp_path / "parts")
        assert against(both).findings == []
        change(both, "labels", 7, 2, 3)
        [line] = against(both).findings
        assert f"item 7, offset 0 ({tmp_path / '1.jsonl'}, row 2)" in line

    def test_merged_of_runs_that_are_the_same(self, data: Path, tmp_path: Path) -> None:
        # Where they lie is no setting.
        parts = [make(data, tmp_path / "parts" / name) for name in ("a", "b")]
        both = tmp_path / "both"
        join([str(part) for part in parts], str(both))
        found = against(both)
        assert (found.findings, found.samples, found.rejections) == ([], 40, 4)
        other = make(data, tmp_path / "parts" / "c", empty_reply="reject")
        join([str(parts[0]), str(other)], str(tmp_path / "mixed"))
        with pytest.raises(DatasetError, match=r"in\.jsonl was encoded with several settings"):
            against(tmp_path / "mixed")

    def test_packed_anew_again_and_again(self, data: Path, tmp_path: Path) -> None:
        first = make(data, tmp_path / "one" / "a", overlong="recent", seq_length=80)
        second = repacked(first, tmp_path / "two" / "b", seq_length=240, neat_pack=True)
        third = repacked(second, tmp_path / "three" / "c", seq_length=160, shuffle=True)
        fourth = repacked(third, tmp_path / "four" / "d")
        for prefix in (second, third, fourth):
            assert against(prefix).findings == []
        shutil.rmtree(first.parent)
        shutil.rmtree(second.parent)
        for prefix in (third, fourth):
            found = against(prefix)
            assert found.findings == []
            assert found.samples == len(rows_of(prefix))
            assert "of a repacked dataset" in found.unchecked[0]

    def test_packed_anew_of_several(self, parts: list[Path], tmp_path: Path) -> None:
        both = repacked(parts, tmp_path / "both" / "a", seq_length=200)
        assert against(both).findings == []
        shutil.move(f"{parts[1]}.manifest.json", f"{parts[1]}.gone")
        with pytest.raises(DatasetError, match=r"was repacked from several .*two.manifest.json"):
            against(both)


def test_mixes_repeat_samples(tmp_path: Path) -> None:
    one, two = write(tmp_path / "a.jsonl", dialogues(3)), write(tmp_path / "b.jsonl", dialogues(9, 20))
    prefix = make(
        one, tmp_path / "out" / "a", input=(str(one), str(two)), mix_strategy="interleave_over",
        interleave_probs=(0.5, 0.5), train_on="split",
    )  # fmt: skip
    found = against(prefix)
    assert found.findings == []
    assert found.samples == len(rows_of(prefix)) > 12
    assert found.records == 12


def test_the_sides_of_a_split(data: Path, tmp_path: Path) -> None:
    prefix = make(data, tmp_path / "out" / "a", split=(60, 40))
    found = against(prefix)
    sides = [rows_of(tmp_path / "out" / f"a_{side}") for side in ("train", "valid")]
    assert (found.findings, found.samples, found.rejections) == ([], sum(map(len, sides)), 2)
    assert against(tmp_path / "out" / "a_valid").samples == len(sides[1])


@pytest.mark.parametrize(("settings", "rejected"), [
    ({}, 0),
    ({"keep_columns": ("number",)}, 0),
    ({"keep_columns": ("pixels",)}, 1),
    ({"rejected_records": True}, 1),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_columns_that_the_run_did_not_read_make_no_record_too_large(
    kind: str, settings: dict[str, Any], rejected: int, tmp_path: Path
) -> None:
    records = [
        {**own, "number": at, "pixels": "x" * (2 << 20 if at == 4 else 9)}
        for at, own in enumerate(dialogues(8))
    ]
    path = {"parquet": _parquet, "arrow": _arrow}[kind](tmp_path / f"in.{kind}", records)
    prefix = make(path, tmp_path / "out" / "a", max_record_mb=1, **settings)
    assert manifest_of(prefix)["records"]["rejected"] == rejected
    found = against(prefix)
    assert (found.findings, found.samples, found.rejections) == ([], 8 - rejected, rejected)


def test_a_footer_that_was_overwritten_is_told_of_the_input(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "in.parquet", dialogues(20))
    prefix = make(path, tmp_path / "out" / "a")
    raw = bytearray(path.read_bytes())
    size = int.from_bytes(raw[-8:-4], "little")
    raw[-8 - size : -8] = b"\xff" * size
    path.write_bytes(raw)
    older(path, Path(f"{prefix}.manifest.json"))
    with pytest.raises(DamagedFileError, match=rf"^{path}: not a readable parquet file"):
        against(prefix)


def test_drawn_records_are_whole(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_groups, "_GROUP_ROWS", 4)  # records go on over its borders
    prefix = make(data, tmp_path / "out" / "a", train_on="split")
    assert pq.ParquetFile(f"{prefix}.sources.parquet").num_row_groups > 5
    of_record: dict[int, int] = {}
    for row in rows_of(prefix):
        of_record[row["row"]] = of_record.get(row["row"], 0) + 1
    looked_at = set()
    for seed in range(8):
        found = check_against(str(prefix), samples=1, seed=seed)
        assert (found.records, found.findings, found.rejections) == (1, [], 1)
        assert found.samples in of_record.values()
        looked_at.add(found.samples)
    assert len(looked_at) > 1
    assert check_against(str(prefix), samples=5, seed=1).records <= 5
    assert check_against(str(prefix), samples=10_000).samples == sum(of_record.values())


def test_another_version_is_worth_a_warning(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prefix = make(data, tmp_path / "out" / "a")
    manifest = manifest_of(prefix)
    manifest["version"] = "0.0.7"
    Path(f"{prefix}.manifest.json").write_text(json.dumps(manifest))
    with caplog.at_level(logging.WARNING):
        assert against(prefix).ok
    assert "was made by version 0.0.7" in caplog.text


def test_what_is_no_dataset_of_ours(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nothing.manifest.json: no such file"):
        against(tmp_path / "nothing")


def _jsonl(path: Path, records: list[dict[str, Any]]) -> Path:
    lines = [json.dumps(record) for record in records]
    lines.insert(2, "   ")
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    return path


def _packed(path: Path, records: list[dict[str, Any]]) -> Path:
    path = path.with_suffix(".jsonl.gz")
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, records)).encode()))
    return path


def _array(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(records))
    return path


def _parquet(path: Path, records: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(records), path, row_group_size=7)
    return path


def _arrow(path: Path, records: list[dict[str, Any]]) -> Path:
    table = pa.Table.from_pylist(records)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table, max_chunksize=5)
    return path


def _csv(path: Path, records: list[dict[str, Any]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "number"])
        writer.writeheader()
        writer.writerows(records)
    return path


@pytest.mark.parametrize(
    ("name", "write_file"),
    [
        ("a.jsonl", _jsonl),
        ("a", _packed),
        ("a.json", _array),
        ("a.parquet", _parquet),
        ("a.arrow", _arrow),
        ("a.csv", _csv),
    ],
)
def test_rows_of_every_format(
    name: str, write_file: Callable[[Path, list[dict[str, Any]]], Path], tmp_path: Path
) -> None:
    records = [{"text": f"line {at}\n\u2028", "number": str(at)} for at in range(40)]
    [file] = find_inputs([str(write_file(tmp_path / name, records))])
    for rows in ([0], [39], [6, 7], [0, 13, 14, 15, 38], list(range(40))):
        found = list(records_at(file, rows, 1 << 26))
        assert all(isinstance(record, Record) for record in found)
        assert [(own.row, own.value) for own in found if isinstance(own, Record)] == [
            (row, records[row]) for row in rows
        ]
    with pytest.raises(InputError, match="no row 40"):
        list(records_at(file, [3, 40], 1 << 26))


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_long_lines_are_never_held(name: str, tmp_path: Path) -> None:
    long = b'{"text": "' + b"x" * (30 << 20) + b'"}'
    path = tmp_path / name
    path.write_bytes(b"\n".join([b'{"text": "one"}', long, b" " * (9 << 20), b'{"text": "two"}', long]))
    [file] = find_inputs([str(path)])
    del long
    tracemalloc.start()
    try:
        found = list(records_at(file, [0, 1, 2, 3], 1 << 20))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [(own.row, own.reason if isinstance(own, Rejection) else "") for own in found] == [
        (0, ""), (1, "too-large"), (2, ""), (3, "too-large"),
    ]  # fmt: skip
    assert peak < 6 << 20


def test_a_parquet_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [{"text": str(at)} for at in range(200)]
    [file] = find_inputs([str(_parquet(tmp_path / "in.parquet", records))])
    opened = []
    really = parquet._open
    monkeypatch.setattr(parquet, "_open", lambda source: opened.append(source) or really(source))
    rows = [3, 5, 60, 61, 139, 140, 199]
    found = list(records_at(file, rows, 1 << 20))
    assert [(own.row, own.value) for own in found if isinstance(own, Record)] == [
        (row, records[row]) for row in rows
    ]
    assert len(opened) == 1


def test_rejections_that_no_record_decides_are_told_with_the_reason(data: Path, tmp_path: Path) -> None:
    prefix = make(data, tmp_path / "out" / "a")
    path = Path(f"{prefix}.rejected.jsonl")
    lines = path.read_text("utf-8").splitlines(keepends=True)
    for reason, why in (
        ("damaged-file", "what stands there can't be read"),
        ("duplicate", "other records decide that"),
    ):
        line = json.dumps({**json.loads(lines[0]), "reason": reason}) + "\n"
        path.write_text("".join([line, *lines[1:]]), "utf-8")
        reseal(prefix)
        found = against(prefix)
        assert found.ok
        assert found.unchecked == [f"{path}: 1 lines {reason!r}: {why}"]
