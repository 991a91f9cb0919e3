"""Whole runs on input that is damaged or made to do harm."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from in_process import InProcess, encoder_of

from mtsft_preproc import plan
from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.errors import InputError, MtsftError, RejectedDataError, TokenizerError
from mtsft_preproc.pipeline import preprocess
from mtsft_preproc.tokenization import load_tokenizer

IN_PROCESS = pytest.mark.usefixtures("in_process")
MakeConfig = Callable[..., PreprocessConfig]
ROWS = [{"instruction": f"question {number}", "output": f"answer {number}"} for number in range(300)]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "TokenizerLoading", InProcess)


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[str, ...]:
    """Return a file whose second of three row groups is damaged, and four that are cut short."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    pq.write_table(
        pa.Table.from_pylist(ROWS), folder / "a.parquet", row_group_size=100, compression="none",
        use_dictionary=False, write_page_checksum=True,
    )  # fmt: skip
    column = pq.ParquetFile(folder / "a.parquet").metadata.row_group(1).column(1)
    raw = bytearray((folder / "a.parquet").read_bytes())
    raw[column.data_page_offset + column.total_compressed_size - 1] ^= 1
    (folder / "a.parquet").write_bytes(raw)
    (folder / "b.parquet").write_bytes(raw[:-1])
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    packed = gzip.compress(lines)
    (folder / "c.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    (folder / "d.json").write_text(json.dumps(ROWS)[:-30])
    (folder / "e.jsonl").write_bytes(lines[:-5])
    return tuple(str(path) for path in sorted(folder.iterdir()))


def output(config: PreprocessConfig) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in sorted(config.prefix.parent.iterdir())}
    del found["data.timings.json"]
    return found


def test_damage_costs_what_can_not_be_read_and_the_ledger_says_what(
    make_config: MakeConfig, inputs: tuple[str, ...], tmp_path: Path
) -> None:
    found = []
    for workers, shard_bytes in ((1, None), (2, 2000)):
        config = make_config(
            input=inputs, on_error="skip", workers=workers, shard_bytes=shard_bytes, handler_name="auto",
            output_prefix=str(tmp_path / f"out{workers}" / "data"),
        )  # fmt: skip
        records = preprocess(config).manifest["records"]
        found.append(output(config))
    assert found[0] == found[1]
    rejected = [json.loads(line) for line in found[0]["data.rejected.jsonl"].splitlines()]
    lost: dict[str, list[Any]] = {Path(path).name: [] for path in inputs}
    for entry in rejected:
        lost[Path(entry["file"]).name].append((entry["row"], entry["reason"]))
    assert lost["a.parquet"] == [(row, "damaged-file") for row in range(100, 200)]
    assert lost["b.parquet"] == [(0, "damaged-file")]
    ((row, reason),) = lost["c.jsonl.gz"]
    assert reason == "damaged-file"
    assert lost["d.json"] == [(299, "truncated")]
    assert lost["e.jsonl"] == [(299, "truncated")]
    read = {Path(own["path"]).name: own["read"] for own in records["by_file"]}
    assert read == {"a.parquet": 300, "b.parquet": 1, "c.jsonl.gz": row + 1, "d.json": 300, "e.jsonl": 300}
    assert records["read"] == records["kept"] + records["rejected"]
    assert records["rejected_by_reason"] == {"damaged-file": 102, "truncated": 2}


@IN_PROCESS
@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("on_error", [None, "fail"])
def test_by_default_damage_stops_the_run_and_names_the_remedy(
    make_config: MakeConfig, inputs: tuple[str, ...], number: int, on_error: str | None
) -> None:
    with pytest.raises(InputError, match=r"damaged|readable|decompressed|truncated") as caught:
        preprocess(make_config(input=inputs[number : number + 1], on_error=on_error))
    assert inputs[number] in str(caught.value)
    assert "--on-error skip" in str(caught.value)


@IN_PROCESS
def test_a_lost_file_counts_for_max_rejected(make_config: MakeConfig, inputs: tuple[str, ...]) -> None:
    with pytest.raises(RejectedDataError, match="100 of 300"):
        preprocess(make_config(input=inputs[:1], on_error="skip", max_rejected=0.3))


def test_where_nothing_can_be_read_there_is_no_run(
    make_config: MakeConfig, inputs: tuple[str, ...]
) -> None:
    with pytest.raises(InputError, match="no records that can be read"):
        preprocess(make_config(input=inputs[1:2], on_error="skip", handler_name="auto"))


HOSTILE = [
    '{"instruction": "a", "output": ' + "[" * 100_000 + "]" * 100_000 + "}",
    '{"instruction": "a", "output": ' + '{"a":' * 190 + "1" + "}" * 190 + "}",
    '{"instruction": "a", "output": ' + "9" * 5000 + "}",
    '{"instruction": "a", "output": 1e999}',
    '{"instruction": "a", "output": NaN}',
    '{"instruction": "a", "output": "\\ud800"}',
    '{"instruction": "a", "\\ud800": 1, "output": "b"}',
    "null", "1", '"text"', "[]", "{",
    "\ufeff" + '{"instruction": "a", "output": "b"}',
]  # fmt: skip


@IN_PROCESS
@pytest.mark.parametrize("rejected_records", [False, True])
def test_no_bad_record_takes_others_along(make_config: MakeConfig, rejected_records: bool) -> None:
    records: list[Any] = []
    for bad in HOSTILE:
        records += [{"instruction": "q\u0000\u2028", "output": f"a\u0000{len(records)}"}, bad]
    config = make_config(records, rejected_records=rejected_records)
    counts = preprocess(config).manifest["records"]
    assert (counts["kept"], counts["rejected"]) == (len(HOSTILE), len(HOSTILE))
    rejected = (config.prefix.parent / "data.rejected.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["reason"] for line in rejected] == [
        "too-deep", "wrong-type", "not-json", "wrong-type", "wrong-type", "lone-surrogate",
        "lone-surrogate", *["not-an-object"] * 4, "not-json", "stray-bom",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["qwen2.5", "llama2", "gpt2", "internlm2", "mistral-v3"])
def test_text_with_zeros_is_encoded_as_the_reference_does(shared: Path, name: str) -> None:
    import sentencepiece
    from transformers import AutoTokenizer

    text = "one\x00two \x00\x00 three"
    folder = shared / "tokenizers" / name
    encoder = encoder_of(load_tokenizer(str(folder), trust_remote_code=False))
    if (folder / "tokenizer.model").exists() and not (folder / "tokenizer.json").exists():
        expected = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).encode(
            text
        )
    else:
        expected = AutoTokenizer.from_pretrained(folder).encode(text, add_special_tokens=False)
    assert encoder.encode([text]).ids.tolist() == expected


@pytest.fixture
def planted(tmp_path: Path, tokenizer_folder: Path) -> tuple[Path, Path]:
    """Return a tokenizer folder with code of all kinds that would make a file, and that file."""
    folder, mark = tmp_path / "tokenizer", tmp_path / "mark"
    shutil.copytree(tokenizer_folder, folder)
    code = f"open({str(mark)!r}, 'w').close()\n"
    (folder / "tokenization_own.py").write_text(
        f"{code}from transformers import PreTrainedTokenizerFast\n\n"
        "class OwnTokenizer(PreTrainedTokenizerFast):\n    pass\n"
    )
    pickled = f"cbuiltins\nexec\n(V{code.strip()}\ntR.".encode()
    for name in ("pytorch_model.bin", "model.pt", "state.pkl", "tokenizer.bin"):
        (folder / name).write_bytes(pickled)
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    settings["tokenizer_class"] = "OwnTokenizer"
    settings["auto_map"] = {"AutoTokenizer": [None, "tokenization_own.OwnTokenizer"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder, mark


def test_a_tokenizer_folder_runs_no_code(make_config: MakeConfig, planted: tuple[Path, Path]) -> None:
    folder, mark = planted
    for _ in range(2):  # the second time it may come from the cache
        with pytest.raises(TokenizerError, match="trust-remote-code"):
            preprocess(make_config(ROWS[:3], tokenizer=str(folder)))
        assert not mark.exists()


BOMBS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('true') }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ lipsum.__globals__ }}{{ lipsum(10**9) }}",
    "{{ ('%s' | format)['__class__'].x.y }}",
    "{% for i in range(10**12) %}x{% endfor %}",
    "{{ 'a' * 10**10 }}",
    "{{ 10**10 * 'a' }}",
    "{{ [0] * 10**10 }}",
    "{{ 10**1000000 }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ '{:{w}}'.format(1, w=1000000000) }}",
    "{{ 'a'.center(10000000000) }}",
    "{{ 'a'.zfill(10000000000) }}",
    "{{ 'a' | center(10000000000) }}",
    "{{ 'a\\nb' | indent(10000000000) }}",
    "{{ [1] | batch(10000000000, 'x') | list }}",
    "{{ {'a': 1} | tojson(indent=10000000000) }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
]


@IN_PROCESS
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_template_reaches_neither_python_nor_all_memory(
    make_config: MakeConfig, tmp_path: Path, bomb: str
) -> None:
    template = tmp_path / "bomb.jinja"
    template.write_text(
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
        "{% endfor %}" + bomb + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    with pytest.raises(MtsftError):
        preprocess(make_config(ROWS[:2], chat_template=str(template), prompt_type=None, max_rejected=0))


@IN_PROCESS
def test_keys_that_come_twice_are_counted(make_config: MakeConfig) -> None:
    twice = '{"instruction": "a", "instruction": "b", "output": "c", "output": "d"}'
    config = make_config([twice, {"instruction": "a", "output": "e"}])
    counts = preprocess(config).manifest["records"]
    assert (counts["kept"], counts["rejected"]) == (2, 0)
    assert counts["notes"]["repeated-key"] == 1


@IN_PROCESS
@pytest.mark.parametrize("shard_bytes", [None, 2000])
def test_each_damaged_file_is_told_once_with_its_own_counts(
    make_config: MakeConfig,
    inputs: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
    shard_bytes: int | None,
) -> None:
    config = make_config(input=inputs, on_error="skip", shard_bytes=shard_bytes, handler_name="auto")
    records = preprocess(config).manifest["records"]
    read = [own["read"] for own in records["by_file"]]
    told = [entry.getMessage() for entry in caplog.records if ": damaged, " in entry.getMessage()]
    # Not of the last line of JSON lines, which is a record like any other.
    assert told == [
        f"{path}: damaged, and read past that: {lost} of its {count} rows stand for what is lost; "
        "PREFIX.rejected.jsonl lists them"
        for path, lost, count in zip(inputs[:4], (100, 1, 1, 1), read[:4], strict=True)
    ]


@IN_PROCESS
def test_a_run_that_stops_warns_of_no_ledger(
    make_config: MakeConfig, inputs: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RejectedDataError, match="100 of 300"):
        preprocess(make_config(input=inputs[:1], on_error="skip", max_rejected=0.3))
    assert "rejected.jsonl" not in caplog.text
