"""Where tokens came from: known from the text, as each message has words of its own."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from arranged import IGNORED, TOKENIZER, items_of, make, manifest_of, repacked, rows_of, write
from in_process import LoadedOnce
from transformers import AutoTokenizer

from mtsft_preproc import plan
from mtsft_preproc.cli import main
from mtsft_preproc.dealing import items_of_step
from mtsft_preproc.errors import DatasetError, SettingsError
from mtsft_preproc.inspection import Tracer, tokenizer, trace_step
from mtsft_preproc.join import join

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
#: Words of which every message has its own: of record 3, message 2: "r3m2w0 r3m2w1 ...".
WORD = re.compile(r"r(\d+)m(\d+|s)w\d+")
ROLES = ("user", "assistant")
FORMATS: dict[str, dict[str, Any]] = {
    "prompt type": {"prompt_type": "chatml"},
    "late stops": {"prompt_type": "gemma"},
    "chat template": {"prompt_type": None, "chat_template": "t.jinja"},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "packs": {"pack": True, "seq_length": 400, "pad_to_multiple_of": 8},
    "split, packed, shuffled": {
        "train_on": "split", "pack": True, "neat_pack": True, "seq_length": 400, "shuffle": True,
    },
    "window": {"overlong": "window", "seq_length": 90},
    "recent": {"overlong": "recent", "seq_length": 90},
    "left": {"overlong": "left", "seq_length": 120},
    "pair": {"overlong": "pair", "seq_length": 120},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in (plan, tokenizer):
        monkeypatch.setattr(module, "TokenizerLoading", LoadedOnce)
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def reference() -> Any:
    """The bundled tokenizer, as transformers opens it."""
    return AutoTokenizer.from_pretrained(TOKENIZER)


def words(record: int, message: int | str, count: int = 3) -> str:
    """The words of a message."""
    return " ".join(f"r{record}m{message}w{place}" for place in range(count))


def records(count: int, start: int = 0) -> list[dict[str, Any]]:
    """ShareGPT records of one to three rounds, every second with a system text."""
    return [
        {
            "conversations": [
                {
                    "from": ("human", "gpt")[number % 2],
                    "value": words(record, number, 2 + (record + number) % 3),
                }
                for number in range(2 + 2 * (record % 3))
            ],
            **({"system": words(record, "s")} if record % 2 else {}),
        }
        for record in range(start, start + count)
    ]


def made(tmp_path: Path, name: str = "a", count: int = 5, start: int = 0, **changes: Any) -> Path:
    """A dataset of such records."""
    source = write(tmp_path / f"{name}.jsonl", records(count, start))
    settings = {"handler_name": "sharegpt", "map_keys": '{"system": "system"}', **changes}
    return make(source, tmp_path / "out" / name, **settings)


def spoken_in(ids: list[int], reference: Any) -> list[tuple[int, int | None] | None]:
    """Per token within words of a message: the record, and the message (None: system)."""
    ends = [len(reference.decode(ids[: count + 1])) for count in range(len(ids))]
    text = reference.decode(ids)
    spans = [(found.start(), found.end(), found.group(1), found.group(2)) for found in WORD.finditer(text)]
    found: list[tuple[int, int | None] | None] = []
    for start, end in zip([0, *ends], ends, strict=False):
        own = [span for span in spans if span[0] <= start < end <= span[1]]
        found.append((int(own[0][2]), None if own[0][3] == "s" else int(own[0][3])) if own else None)
    return found


def check_every_token(prefix: Path, reference: Any, first: int = 0) -> int:
    """Trace every token of a dataset, and return how many of them lie in words."""
    tracer = Tracer(str(prefix))
    named = 0
    ids_of, labels_of = items_of(prefix, "input_ids"), items_of(prefix, "labels")
    by_item = {number: [] for number in range(len(ids_of))}  # type: dict[int, list[dict[str, Any]]]
    for row in rows_of(prefix):
        by_item[row["item"]].append(row)
    for number, rows in by_item.items():
        padding = set(range(len(ids_of[number])))
        for row in rows:
            start, stop = row["offset"], row["offset"] + row["length"]
            padding -= set(range(start, stop))
            ids = ids_of[number][start:stop].tolist()
            spoken = spoken_in(ids, reference)
            for place, said in enumerate(spoken):
                traced = tracer.token(number, start + place)
                assert traced.place is not None
                assert (traced.place.file, traced.place.row, traced.place.turn) == (
                    row["file"], row["row"], row["turn"],
                )  # fmt: skip
                assert traced.text.id == ids[place]
                assert traced.part is not None, traced.why
                if said is not None:
                    named += 1
                    record, message = said
                    assert record - first == row["row"] or first < 0
                    assert traced.message == message, (ids, place, traced)
                    assert traced.role == (None if message is None else ROLES[message % 2])
                    parts = {"system"} if message is None else {"message"}
                    # A reply that is not trained may count as context.
                    assert traced.part in (parts | {"reply"} if (message or 0) % 2 else parts)
                label = int(labels_of[number][start + place])
                if label == ids[place]:  # trained: the assistant's, whose words stand last before it
                    before = [own[1] for own in spoken[: place + 1] if own is not None]
                    assert traced.part == "reply"
                    assert traced.message is not None
                    assert traced.message % 2 == 1
                    assert traced.message in (before[-1], (before[-1] or 0) + 1)
        for place in padding:
            traced = tracer.token(number, place)
            assert (traced.place, traced.message) == (None, None)
            assert "padding" in traced.why
    return named


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("chat_format", FORMATS)
def test_every_token_names_its_message(
    chat_format: str, settings: str, tmp_path: Path, reference: Any
) -> None:
    prefix = made(tmp_path, **FORMATS[chat_format], **SETTINGS[settings])
    cut = SETTINGS[settings].get("overlong")
    assert cut is None or manifest_of(prefix)["records"]["notes"][f"cut-{cut}"] >= 1
    assert check_every_token(prefix, reference) > 100


def test_text_between_messages(tmp_path: Path, reference: Any) -> None:
    """A chat template's own text is no message's; which ones it stands between is told."""
    prefix = made(tmp_path, **FORMATS["chat template"])
    ids = items_of(prefix, "input_ids")[1].tolist()
    said = [None if own is None else own[1] for own in spoken_in(ids, reference)]
    first = said.index(2)  # the words of the second question; in front of them, its header
    traced = Tracer(str(prefix)).token(1, first - 2)
    assert (traced.text.before + traced.text.text).endswith("<|im_start|>user")
    assert (traced.part, traced.message) == ("format", None)
    assert traced.why.endswith(
        "none of them: behind message 1 (assistant) and in front of message 2 (user)"
    )


def test_datasets_made_of_others(tmp_path: Path, reference: Any) -> None:
    one, two = made(tmp_path, "one", 3), made(tmp_path, "two", 3, 6)
    again = repacked(one, tmp_path / "again", seq_length=256)
    assert check_every_token(again, reference) > 50
    both = tmp_path / "both"
    join([str(one), str(two)], str(both))
    assert check_every_token(both, reference, first=-1) > 100


def test_runs_that_are_the_same_merged(tmp_path: Path, reference: Any) -> None:
    one = made(tmp_path, count=3)
    two = make(
        tmp_path / "a.jsonl", tmp_path / "out" / "b",
        handler_name="sharegpt", map_keys='{"system": "system"}',
    )  # fmt: skip
    both = tmp_path / "both"
    join([str(one), str(two)], str(both))
    assert check_every_token(both, reference) > 100


def test_columns_that_the_run_did_not_read(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    rows = [{**record, "pixels": "x" * (2 << 20)} for record in records(2)]
    pq.write_table(pa.Table.from_pylist(rows), path)
    prefix = make(path, tmp_path / "out" / "a", handler_name="sharegpt", map_keys="{}", max_record_mb=1)
    traced = Tracer(str(prefix)).token(1, -1)
    assert (traced.part, traced.role) == ("reply", "assistant")
    assert traced.record == {"conversations": rows[1]["conversations"]}


def test_a_record_is_shown_where_nothing_encodes_it(tmp_path: Path) -> None:
    prefix = made(tmp_path, **FORMATS["chat template"])
    (tmp_path / "t.jinja").write_text(TEMPLATE + " ")
    traced = Tracer(str(prefix)).token(1, -1)
    assert traced.part is None
    assert "is not the one that the dataset was made with" in traced.why
    assert traced.record == records(2)[1]


def test_a_footer_that_was_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.Table.from_pylist(records(2)), path)
    prefix = make(path, tmp_path / "out" / "a", handler_name="sharegpt", map_keys="{}")
    raw, before = bytearray(path.read_bytes()), path.stat()
    size = int.from_bytes(raw[-8:-4], "little")
    raw[-8 - size : -8] = b"\xff" * size
    path.write_bytes(raw)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    traced = Tracer(str(prefix)).token(1, -1)
    assert traced.part is None
    assert f"{path}: not a readable parquet file" in traced.why


def test_a_mix_that_repeats(tmp_path: Path, reference: Any) -> None:
    one, two = write(tmp_path / "1.jsonl", records(2)), write(tmp_path / "2.jsonl", records(5, 10))
    prefix = make(
        one, tmp_path / "out" / "mix", input=(str(one), str(two)), handler_name="sharegpt",
        map_keys='{"system": "system"}', mix_strategy="interleave_over", interleave_probs=(0.5, 0.5),
    )  # fmt: skip
    assert len(rows_of(prefix)) > 7
    assert check_every_token(prefix, reference, first=-1) > 100


def test_a_text_form(tmp_path: Path, reference: Any) -> None:
    rows = [
        {"prompt": words(at, 2), "response": words(at, 3), "history": [[words(at, 0), words(at, 1)]]}
        for at in range(2)
    ]
    prefix = make(
        write(tmp_path / "a.jsonl", rows), tmp_path / "out" / "a",
        handler_name="chatglm", prompt_type=None, map_keys="{}",
    )  # fmt: skip
    assert check_every_token(prefix, reference) > 50


class TestOtherKinds:
    """Pairs, prompts and text documents."""

    def test_pairs(self, tmp_path: Path, reference: Any) -> None:
        rows = [
            {"instruction": words(at, 0), "input": "", "chosen": words(at, 1), "rejected": words(at, 1, 7)}
            for at in range(3)
        ]
        prefix = make(
            write(tmp_path / "p.jsonl", rows), tmp_path / "out" / "a",
            handler_name="alpaca-pairwise", map_keys="{}",
        )  # fmt: skip
        for side in ("chosen", "rejected"):
            tracer = Tracer(str(prefix), side)
            for item, tokens in enumerate(items_of(prefix, f"{side}_input_ids")):
                for place, said in enumerate(spoken_in(tokens.tolist(), reference)):
                    traced = tracer.token(item, place)
                    assert traced.place is not None
                    assert (traced.place.row, traced.place.length) == (item, len(tokens))
                    if said is not None:
                        assert (traced.message, traced.role) == (said[1], ROLES[said[1] or 0])
                        assert traced.text.trained == (said[1] == 1)
        with pytest.raises(SettingsError, match=r"--field: .* has no 'chosn'; did you mean 'chosen'"):
            Tracer(str(prefix), "chosn")

    def test_a_dataset_without_fields_offers_none(self, tmp_path: Path) -> None:
        prefix = made(tmp_path, count=2)
        for name in ("chosen", "sample"):
            with pytest.raises(
                SettingsError, match=r"^--field: expected none: .* no fields to choose from$"
            ):
                Tracer(str(prefix), name)

    def test_prompts(self, tmp_path: Path, reference: Any) -> None:
        rows = [{"instruction": words(at, 0), "input": "", "output": words(at, 1)} for at in range(2)]
        prefix = make(
            write(tmp_path / "p.jsonl", rows), tmp_path / "out" / "a",
            handler_name="alpaca-r1", map_keys="{}", dataset_additional_keys=("labels",),
        )  # fmt: skip
        tracer = Tracer(str(prefix))
        tokens = items_of(prefix, "input_ids")[1].tolist()
        said = spoken_in(tokens, reference)
        assert {own[1] for own in said if own is not None} == {0}
        for place, own in enumerate(said):
            if own is not None:
                traced = tracer.token(1, place)
                assert (traced.message, traced.role, traced.text.label) == (0, "user", None)
        reply = Tracer(str(prefix), "labels").token(1, 0)
        assert reply.message is None
        assert reply.why == "of the field 'labels' of the record, which is no message"

    def test_text_documents(self, tmp_path: Path) -> None:
        rows = [{"text": text} for text in ("", "one two three", "", "four")]
        rows[0]["note"] = rows[2]["note"] = "a note"
        rows[1]["note"] = rows[3]["note"] = ""
        prefix = make(
            write(tmp_path / "d.jsonl", rows), tmp_path / "out" / "a",
            handler_name="pretrain", prompt_type=None, map_keys="{}", json_keys=("text", "note"),
        )  # fmt: skip
        # Two documents have a text: rows 1 and 3.
        found = [Tracer(str(prefix)).token(item, 0) for item in (0, 1)]
        assert [own.place.row for own in found if own.place] == [1, 3]
        assert [own.record["text"] for own in found] == ["one two three", "four"]
        assert found[0].why == "a text document, which has no turns"
        assert (found[0].message, found[0].text.label) == (None, None)
        with pytest.raises(DatasetError, match="the sources sidecar doesn't tell which"):
            Tracer(str(prefix), "note").token(0, 0)


def test_text_label_and_neighbours(tmp_path: Path, reference: Any) -> None:
    prefix = made(tmp_path, prompt_type="gemma", count=3)
    ids, labels = items_of(prefix, "input_ids")[2].tolist(), items_of(prefix, "labels")[2].tolist()
    tracer = Tracer(str(prefix))
    for place, (index, label) in enumerate(zip(ids, labels, strict=True)):
        text = tracer.token(2, place - len(ids)).text  # counted from the end
        assert (text.id, text.label) == (index, label)
        assert text.text == reference.decode([index])
        assert text.before == reference.decode(ids[place - len(text.parts[0][0]) : place])
        assert text.after == reference.decode(ids[place + 1 : place + 1 + len(text.parts[2][0])])
        assert len(text.before) >= 200 or len(text.parts[0][0]) == place
        assert text.trained == (label != IGNORED)
        assert (text.taught is not None) == (label not in (IGNORED, index))
    late = [place for place in range(len(ids)) if labels[place] not in (IGNORED, ids[place])]
    assert late
    assert tracer.token(2, late[0]).text.taught == reference.decode([labels[late[0]]])


class TestWhatIsGone:
    """The place is known from the sidecar alone; the turn, only from the record."""

    def test_the_input(self, tmp_path: Path) -> None:
        prefix = made(tmp_path, train_on="split")
        shutil.move(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
        traced = Tracer(str(prefix)).token(3, 5)
        assert traced.place is not None
        assert (traced.place.file, traced.place.turn) == (
            str(tmp_path / "a.jsonl"),
            rows_of(prefix)[3]["turn"],
        )
        assert (traced.message, traced.record) == (None, None)
        assert "the turn can't be told" in traced.why
        assert "a.jsonl: no such file" in traced.why
        there = Tracer(str(prefix), inputs=[str(tmp_path / "b.jsonl")]).token(3, 5)
        assert there.part is not None
        assert there.record["conversations"]

    def test_inputs_that_are_given_wrongly_are_named_by_their_flag(self, tmp_path: Path) -> None:
        prefix = made(tmp_path)
        for given, told in (
            ([str(tmp_path / "nope.jsonl")], "no such file or folder: "),
            ([str(path) for path in tmp_path.glob("*.jsonl")] * 2, "the dataset was made of 1 files"),
        ):
            assert len(given) in (1, 2)
            traced = Tracer(str(prefix), None, given).token(0, 5)
            assert traced.why.startswith(f"the turn can't be told: --input: {told}")

    def test_a_record_that_says_something_else(self, tmp_path: Path) -> None:
        prefix = made(tmp_path)
        source = tmp_path / "a.jsonl"
        status = source.stat()
        source.write_text(source.read_text().replace("r0m1w1", "r0m1w7"))
        os.utime(source, ns=(status.st_mtime_ns,) * 2)
        traced = Tracer(str(prefix)).token(0, 5)
        assert traced.message is None
        assert "gives other tokens" in traced.why
        # A record behind it that says the same as then is traced.
        assert Tracer(str(prefix)).token(1, -1).message == 3

    def test_numbers_that_are_not_there(self, tmp_path: Path) -> None:
        prefix = made(tmp_path)
        with pytest.raises(DatasetError, match="no item 5; there are 5"):
            Tracer(str(prefix)).item(5)
        length = len(items_of(prefix, "input_ids")[0])
        with pytest.raises(DatasetError, match=f"item 0 has no token {length}; it has {length}"):
            Tracer(str(prefix)).token(0, length)


def test_a_step_names_the_samples_of_its_items(tmp_path: Path) -> None:
    prefix = made(tmp_path, count=30, pack=True, seq_length=256)
    count = manifest_of(prefix)["items"]
    assert count > 8
    for step, tail in itertools.product((1, 3, 9), ("drop", "pad")):
        found = trace_step(str(prefix), step, 4, 77, tail)
        epoch, items = items_of_step(count, 4, 77, step, tail)
        assert (found.step, found.epoch) == (step, epoch)
        assert [own.item for own in found.items] == items.tolist()
        for own in found.items:
            rows = sorted(
                (row for row in rows_of(prefix) if row["item"] == own.item), key=lambda row: row["offset"]
            )
            assert [(place.offset, place.row) for place in own.samples] == [
                (row["offset"], row["row"]) for row in rows
            ]


class TestCommand:
    """``mtsft trace``."""

    def run(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
        assert main(["trace", *map(str, arguments)]) == 0
        return capsys.readouterr().out

    def test_an_item(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        prefix = made(tmp_path, pack=True, seq_length=512)
        rows = [row for row in rows_of(prefix) if row["item"] == 0]
        shown = self.run(capsys, prefix, 0).splitlines()
        assert shown[0] == f"item 0: 512 tokens, {len(rows)} samples"
        assert shown[1].split() == [
            "sample",
            "offset",
            "length",
            "trained",
            "turn",
            "row",
            "digest",
            "source",
            "file",
        ]
        for line, row in zip(shown[2:], rows, strict=True):
            assert line.split()[1:4] == [str(row[name]) for name in ("offset", "length", "trained")]
            assert line.split()[4] == str(row["row"])
            assert line.split()[-1] == row["file"]
        told = json.loads(self.run(capsys, prefix, 0, "--json"))
        assert [own["digest"] for own in told["samples"]] == [row["digest"].hex() for row in rows]

    def test_a_token(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        prefix = made(tmp_path, count=3)
        source = write(tmp_path / "a.jsonl", records(3))
        told = json.loads(self.run(capsys, prefix, 2, -1, "--json"))
        assert told["token"] == len(items_of(prefix, "input_ids")[2]) - 1
        assert told["record"] == records(3)[2]
        assert (told["message"], told["role"], told["part"]) == (5, "assistant", "reply")
        assert told["sample"]["row"] == 2
        shown = self.run(capsys, prefix, 2, -1)
        assert f"from     {source}, row 2" in shown
        assert "turn     message 5 (assistant): what the assistant says" in shown
        assert "trained, predicted from what stands before it" in shown
        assert f">>>{told['text']}<<<" in shown

    def test_long_records_are_cut(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        rows = [{"instruction": "long [bold]" + "x" * 1000, "input": "", "output": "so"}]
        prefix = make(write(tmp_path / "l.jsonl", rows), tmp_path / "out" / "l", map_keys="{}")
        shown = self.run(capsys, prefix, 0, 0)
        assert "... (1011 characters; --full shows all)" in shown
        assert "x" * 400 not in shown
        assert '"long [bold]xxx' in shown
        assert "x" * 1000 in self.run(capsys, prefix, 0, 0, "--full")

    def test_a_step(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        prefix = made(tmp_path)
        flags = (prefix, "--step", 2, "--global-batch-size", 2, "--seed", 5)
        items = items_of_step(5, 2, 5, 2).items.tolist()
        shown = self.run(capsys, *flags).splitlines()
        assert shown[0] == "step 2: epoch 0, 2 items"
        assert [int(line.split()[0]) for line in shown[2:]] == items
        told = json.loads(self.run(capsys, *flags, "--epoch-tail", "pad", "--json"))
        assert [own["item"] for own in told["items"]] == items

    @pytest.mark.parametrize(
        ("flags", "named"),
        [
            ([], "expected the number of an ITEM, or --step N"),
            (["--step", "1"], "expected --global-batch-size with it"),
            (["--step", "1", "--global-batch-size", "2"], "expected --seed with it"),
            (["--step", "1", "--global-batch-size", "9", "--seed", "1"], "9 is more than the 5 items"),
            (["3", "--step", "1", "--global-batch-size", "2", "--seed", "1"], "expected no ITEM with it"),
            (["9"], "no item 9; there are 5"),
        ],
    )
    def test_errors_are_one_line(
        self, flags: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        prefix = made(tmp_path)
        capsys.readouterr()
        assert main(["trace", str(prefix), *flags]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith("error: ")
        assert named in err
