"""Whole runs: same bytes however they ran, nothing lost, nothing half-written."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtsft_preproc import finish, pipeline, publish
from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.engines import engines
from mtsft_preproc.errors import DatasetError, InputError, OutputError, RejectedDataError, WorkerError
from mtsft_preproc.indexed import IndexedDataset
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.pipeline import preprocess

ROOT = Path(__file__).parents[1]
MakeConfig = Callable[..., PreprocessConfig]

GOOD = {"instruction": "Say hi.", "input": "to Bob", "output": "Hi Bob!"}


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "instruction": f"question {number} " + "word " * (number % 17),
            "input": "",
            "output": f"answer {number} " + "说 " * (number % 23),
            "history": [["earlier", f"reply {number}"]] * (number % 3),
        }
        for number in range(count)
    ]


def published(config: PreprocessConfig) -> dict[str, bytes]:
    folder = config.prefix.parent
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != "data.timings.json"  # of which no two runs have the same
    }


def items(config: PreprocessConfig, field: str) -> list[list[int]]:
    return [item.tolist() for item in IndexedDataset(OutputPaths(config.prefix).dataset(f"packed_{field}"))]


HISTORY = '{"history": "history"}'
NAMES = [
    "data.manifest.json",
    "data.rejected.jsonl",
    "data.sources.parquet",
    *(
        f"data_packed_{field}_document{suffix}"
        for field in ("attention_mask", "input_ids", "labels")
        for suffix in (".bin", ".idx")
    ),
]


def test_bytes_depend_on_neither_workers_nor_engine_nor_shards(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    outputs = []
    ways: list[dict[str, Any]] = [
        {"workers": 1},
        {"workers": 3, "shard_bytes": 3000},
        {"workers": 1, "shard_bytes": 1},
        {"workers": 1, "engine": "pool", "shard_bytes": 20000},
    ]
    for number, way in enumerate(ways):
        prefix = str(tmp_path / str(number) / "data")
        config = make_config([*rows(150), "broken {", GOOD], map_keys=HISTORY, output_prefix=prefix, **way)
        preprocess(config)
        outputs.append(published(config))
    assert sorted(outputs[0]) == NAMES
    assert outputs[0] == outputs[1] == outputs[2] == outputs[3]


def test_the_ledger_accounts_for_every_record(make_config: MakeConfig) -> None:
    records = [
        GOOD,
        "not json",
        {"instruction": "a", "input": "", "output": None},
        {"instruction": "b", "input": "", "output": ["x"]},
        GOOD,
        [1, 2],
        {"instruction": "c", "input": "", "output": "x", "history": ["flat"]},
        {"instruction": "d", "input": "", "output": ""},
        '{"instruction": "\\ud800", "output": "x"}',
        {"instruction": "long", "input": "", "output": "word " * 200},
    ]
    config = make_config(records, map_keys=HISTORY, seq_length=100, shard_bytes=60)
    manifest = preprocess(config).manifest
    counts = manifest["records"]
    reasons = {
        "bad-history": 1, "lone-surrogate": 1, "missing-field": 1, "not-an-object": 1, "not-json": 1,
        "overlong": 1, "wrong-type": 1,
    }  # fmt: skip
    assert counts["rejected_by_reason"] == reasons
    assert (counts["read"], counts["kept"], counts["rejected"]) == (10, 3, 7)
    assert counts["notes"] == {"empty-reply": 1}
    folder = config.prefix.parent
    lines = (folder / "data.rejected.jsonl").read_text("utf-8").splitlines()
    rejected = [json.loads(line) for line in lines]
    raw = Path(config.input[0]).read_bytes()
    assert sorted(entry["row"] for entry in rejected) == [1, 2, 3, 5, 6, 8, 9]
    for entry in rejected:
        assert entry["file"] == config.input[0]
        line = raw[entry["byte_offset"] :].split(b"\n", 1)[0]
        assert line == raw.splitlines()[entry["row"]]
    sources = pq.read_table(folder / "data.sources.parquet").to_pylist()
    assert [row["row"] for row in sources] == [0, 4, 7]
    assert [row["item"] for row in sources] == [0, 1, 2]
    ids, labels = items(config, "input_ids"), items(config, "labels")
    assert [row["length"] for row in sources] == [len(item) for item in ids]
    assert [row["trained"] for row in sources] == [sum(label != -100 for label in item) for item in labels]
    assert manifest["tokens"] == sum(map(len, ids))
    for name, entry in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["bytes"], entry["sha256"])


def test_the_three_datasets_go_together(make_config: MakeConfig) -> None:
    config = make_config(rows(30), map_keys=HISTORY, ignore_index=-7)
    preprocess(config)
    fields = {name: items(config, name) for name in ("input_ids", "labels", "attention_mask")}
    for ids, labels, mask in zip(*fields.values(), strict=True):
        assert mask == [1] * len(ids)
        assert all(label in (-7, token) for label, token in zip(labels, ids, strict=True))
        assert any(label != -7 for label in labels)


def test_a_sample_of_just_the_limit_is_kept(make_config: MakeConfig) -> None:
    config = make_config([GOOD, {**GOOD, "output": "Hi Bob! And Alice, and all the others."}])
    longest = preprocess(config).manifest["length_quantiles"]["1.0"]
    for limit, kept in ((longest, 2), (longest - 1, 1)):
        again = make_config(seq_length=limit, overwrite=True)
        assert preprocess(again).manifest["records"]["kept"] == kept


def test_max_samples_reads_the_first_records(make_config: MakeConfig, tmp_path: Path) -> None:
    wanted = preprocess(make_config(rows(37), map_keys=HISTORY, shard_bytes=500)).manifest
    config = make_config(
        rows(90),
        map_keys=HISTORY,
        shard_bytes=500,
        max_samples=37,
        output_prefix=str(tmp_path / "m" / "data"),
    )
    found = preprocess(config).manifest
    assert found["records"]["read"] == wanted["records"]["read"] == 37
    names = [name for name in wanted["files"] if name.endswith((".bin", ".idx"))]
    assert [found["files"][name] for name in names] == [wanted["files"][name] for name in names]


def test_several_inputs_are_read_in_order(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "b.json").write_text(json.dumps(rows(3)), "utf-8")
    (folder / "a.jsonl").write_text(json.dumps({**GOOD, "history": None}) + "\n", "utf-8")
    config = make_config(input=(str(folder),), map_keys=HISTORY)
    manifest = preprocess(config).manifest
    assert [Path(entry["path"]).name for entry in manifest["records"]["by_file"]] == ["a.jsonl", "b.json"]
    sources = pq.read_table(config.prefix.parent / "data.sources.parquet").to_pylist()
    assert [(Path(row["file"]).name, row["row"]) for row in sources] == [
        ("a.jsonl", 0), ("b.json", 0), ("b.json", 1), ("b.json", 2),
    ]  # fmt: skip


def test_a_run_that_rejects_its_data_stops_and_publishes_nothing(make_config: MakeConfig) -> None:
    records = [GOOD, *[{"instruction": "x", "output": None}] * 2, GOOD]
    with pytest.raises(RejectedDataError, match=r"2 of 4 .*missing-field 2.*row 1, field 'output'"):
        preprocess(make_config(records, max_rejected=0.4))
    with pytest.raises(RejectedDataError, match="2 of 4"):
        preprocess(make_config(max_rejected=1))
    assert not [name for name in os.listdir(make_config().prefix.parent) if "packed" in name]
    with pytest.raises(RejectedDataError, match=r"--on-error fail: .*in\.jsonl, row 1, field 'output'"):
        preprocess(make_config(on_error="fail"))
    assert preprocess(make_config(max_rejected=2)).reused_parts == 1


def test_a_finished_output_is_refused_or_replaced_at_the_end(make_config: MakeConfig) -> None:
    config = make_config(rows(5))
    preprocess(config)
    before = published(config)
    assert sorted(before) == NAMES
    with pytest.raises(OutputError, match=r"exists already.*--overwrite"):
        preprocess(config)
    assert published(config) == before
    with pytest.raises(RejectedDataError):
        preprocess(make_config(["broken"], overwrite=True, max_rejected=0))
    left = {name: content for name, content in published(config).items() if name in before}
    assert left == before
    preprocess(make_config([GOOD], overwrite=True, restart=True))
    assert preprocess_items(config) == 1


def preprocess_items(config: PreprocessConfig) -> int:
    manifest: dict[str, Any] = json.loads(OutputPaths(config.prefix).manifest.read_text("utf-8"))
    return int(manifest["items"])


class Stopped(BaseException):
    """Stands for a death at a certain point."""


def test_an_output_that_appears_while_a_run_plans_is_not_replaced(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config([GOOD])
    plan = pipeline.make_plan

    def meanwhile(settings: PreprocessConfig, *others: Any) -> Any:
        monkeypatch.undo()
        preprocess(settings)
        return plan(settings, *others)

    monkeypatch.setattr(pipeline, "make_plan", meanwhile)
    with pytest.raises(OutputError, match="exists already"):
        preprocess(config)


def test_an_input_that_changes_while_it_is_read_is_noticed(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config([GOOD, GOOD])
    opened = pipeline._open_work

    def change(*arguments: Any) -> Any:
        Path(config.input[0]).write_text(json.dumps({**GOOD, "output": "other"}) + "\n")
        return opened(*arguments)

    monkeypatch.setattr(pipeline, "_open_work", change)
    with pytest.raises(InputError, match=r"in\.jsonl: (changed|became shorter)"):
        preprocess(config)
    assert "data.manifest.json" not in published(config)


def test_an_engine_that_leaves_a_shard_out_is_found_out(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lazy(self: Any, task: Any, items: Any) -> Any:
        return ((item, task(item)) for item in items[1:])

    monkeypatch.setattr(engines.get("serial"), "run", lazy)
    with pytest.raises(WorkerError, match="ran 0 of"):
        preprocess(make_config(rows(20), shard_bytes=500))


def test_the_part_of_another_shard_is_never_taken(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(rows(40), shard_bytes=800)
    encode = pipeline.make_parts

    def swap(plan: Any, task: Any, engine: Any, merger: Any) -> Any:
        found = encode(plan, task, engine, merger)
        os.replace(task.path(plan.shards[1]), task.path(plan.shards[2]))
        task(plan.shards[1])
        return found

    monkeypatch.setattr(pipeline, "make_parts", swap)
    with pytest.raises(DatasetError, match="not the work of shard 2"):
        preprocess(config)


def test_an_output_beside_its_input_can_be_made_again(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = tmp_path / "both"
    folder.mkdir()
    (folder / "a.jsonl").write_text(json.dumps(GOOD) + "\n")
    config = make_config(input=(str(folder),), output_prefix=str(folder / "out"), max_rejected=0)
    first = preprocess(config).manifest
    again = make_config(
        input=(str(folder),), output_prefix=str(folder / "out"), max_rejected=0, overwrite=True
    )
    assert preprocess(again).manifest == first


@pytest.mark.parametrize("name", ["in.jsonl", "in.json", "in.jsonl.gz", "in.csv", "in.parquet"])
def test_no_records_are_no_dataset(make_config: MakeConfig, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(
            pa.table({"instruction": pa.array([], "string"), "output": pa.array([], "string")}), path
        )
    else:
        empty = {"in.json": b" [ ] ", "in.jsonl.gz": gzip.compress(b""), "in.csv": b"instruction,output\n"}
        path.write_bytes(empty.get(name, b""))
    with pytest.raises(InputError, match="no records"):
        preprocess(make_config(input=(str(path),)))


def test_a_publication_is_finished_without_its_input(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config([GOOD])

    def stop(_: Any) -> None:
        raise Stopped

    monkeypatch.setattr(publish, "finish_commit", stop)
    with pytest.raises(Stopped):
        preprocess(config)
    monkeypatch.undo()
    Path(config.input[0]).unlink()
    with pytest.raises(InputError, match="no such file"):
        preprocess(config)
    assert sorted(published(config)) == NAMES
    assert not OutputPaths(config.prefix).work.exists()


@pytest.fixture
def undisturbed(make_config: MakeConfig, tmp_path: Path) -> dict[str, bytes]:
    config = make_config(
        rows(60), map_keys=HISTORY, shard_bytes=1000, output_prefix=str(tmp_path / "calm" / "data")
    )
    preprocess(config)
    return published(config)


#: Renames of a publication: the commit record, six datasets' files, three sidecars, the manifest, and the
#: work folder out of the way.
RENAMES = 12


@pytest.mark.parametrize(
    ("where", "at"), [("task", 0), ("task", 3), *(("replace", at) for at in range(RENAMES))]
)
def test_stopped_anywhere_the_same_command_ends_with_the_same_bytes(
    where: str,
    at: int,
    make_config: MakeConfig,
    undisturbed: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``task``: while the parts are made; ``replace``: at each rename of the publication."""
    config = make_config(map_keys=HISTORY, shard_bytes=1000)
    real: Any
    count = 0

    def counted(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count > at:
            raise Stopped
        return real(*arguments)

    if where == "task":
        real = pipeline.EncodeShard.__call__
        monkeypatch.setattr(pipeline.EncodeShard, "__call__", counted)
    else:
        real = os.replace
        merge = finish.merge_parts

        def then_count(*arguments: Any) -> Any:
            found = merge(*arguments)
            monkeypatch.setattr(os, "replace", counted)
            return found

        monkeypatch.setattr(finish, "merge_parts", then_count)
    with pytest.raises(Stopped):
        preprocess(config)
    monkeypatch.undo()
    if where == "replace" and at < RENAMES - 2:
        assert not (config.prefix.parent / "data.manifest.json").exists()
    preprocess(config)
    assert published(config) == undisturbed


def test_a_publication_has_so_many_renames(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, merge = os.replace, finish.merge_parts
    seen: list[str] = []

    def counted(source: Any, target: Any) -> None:
        seen.append(Path(target).name)
        real(source, target)

    def then_count(*arguments: Any) -> Any:
        found = merge(*arguments)
        monkeypatch.setattr(os, "replace", counted)
        return found

    monkeypatch.setattr(finish, "merge_parts", then_count)
    preprocess(make_config([GOOD]))
    assert len(seen) == RENAMES
    assert seen[0] == "commit.json"
    assert seen[-2:] == ["data.manifest.json", "data.mtsft-done"]
    assert sorted(seen[1:-1]) == sorted([*NAMES, "data.timings.json"])


def test_changed_settings_do_not_mix_with_old_parts(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise Stopped

    monkeypatch.setattr(finish, "merge_parts", stop)
    with pytest.raises(Stopped):
        preprocess(make_config(rows(10)))
    monkeypatch.undo()
    with pytest.raises(
        OutputError, match=r"settings\.prompt_type: was \"chatml\", is \"gemma\".*--restart"
    ):
        preprocess(make_config(prompt_type="gemma"))
    assert preprocess(make_config(prompt_type="gemma", restart=True)).reused_parts == 0


def test_a_damaged_part_is_made_again(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise Stopped

    config = make_config(rows(40), shard_bytes=800)
    monkeypatch.setattr(finish, "merge_parts", stop)
    with pytest.raises(Stopped):
        preprocess(config)
    monkeypatch.undo()
    parts = sorted(OutputPaths(config.prefix).parts.glob("*.part"))
    assert len(parts) > 5
    parts[1].write_bytes(parts[1].read_bytes()[:-5])
    parts[2].unlink()
    for number, place in ((3, 50), (4, -1500)):  # in the tokens; in the tail, in front of the footer
        raw = bytearray(parts[number].read_bytes())
        raw[place] ^= 1
        parts[number].write_bytes(raw)
    reused = preprocess(config).reused_parts
    assert reused == len(parts) - 4
    assert len(items(config, "labels")) == 40


def test_a_second_run_on_one_output_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable, "-c",
            "import sys, time; from pathlib import Path; from mtsft_preproc.lock import OutputLock\n"
            "with OutputLock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)",
            str(tmp_path / "out" / "data"),
        ],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )  # fmt: skip
    (tmp_path / "out").mkdir(exist_ok=True)
    try:
        if holder.poll() is not None or not (holder.stdout and holder.stdout.readline()):
            pytest.fail("the holder did not start")
        with pytest.raises(OutputError, match=f"another run .* process {holder.pid} on"):
            preprocess(make_config([GOOD]))
    finally:
        holder.kill()
        holder.communicate()
    preprocess(make_config([GOOD]))


def command(config: PreprocessConfig) -> list[str]:
    return [
        sys.executable, str(ROOT / "preprocess_data.py"), "--input", *config.input,
        "--output-prefix", config.output_prefix, "--tokenizer-name-or-path", config.tokenizer,
        "--handler-name", "alpaca", "--prompt-type", "chatml", "--map-keys", HISTORY,
        "--workers", "2", "--shard-bytes", "20000",
    ]  # fmt: skip


def test_kill_9_of_the_whole_group_loses_nothing(make_config: MakeConfig, tmp_path: Path) -> None:
    calm = make_config(rows(4000), map_keys=HISTORY, output_prefix=str(tmp_path / "calm" / "data"))
    preprocess(calm)
    config = make_config()
    parts = OutputPaths(config.prefix).parts
    run = subprocess.Popen(command(config), stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(parts.glob("*.part"))) < 2 and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert list(parts.glob("*.part"))
    assert not config.prefix.with_name("data.manifest.json").exists()
    done = subprocess.run(command(config), capture_output=True, text=True, check=True)
    assert "parts reused" in done.stdout
    assert published(config) == published(calm)


def test_workers_end_with_a_driver_that_was_killed(make_config: MakeConfig) -> None:
    config = make_config(rows(4000))
    run = subprocess.Popen(command(config), stderr=subprocess.DEVNULL, start_new_session=True)
    parts = OutputPaths(config.prefix).parts
    deadline = time.monotonic() + 60
    while not list(parts.glob("*.part")) and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    while group(run.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not group(run.pid)


def group(leader: int) -> list[int]:
    """Return the living processes of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == leader and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def test_lengths_are_int32_and_offsets_int64(make_config: MakeConfig) -> None:
    config = make_config(rows(3))
    preprocess(config)
    raw = OutputPaths(config.prefix).dataset("packed_labels").with_suffix(".idx").read_bytes()
    count = 3
    lengths = np.frombuffer(raw, "<i4", count, 34)
    offsets = np.frombuffer(raw, "<i8", count, 34 + 4 * count)
    assert offsets.tolist() == [0, *(4 * np.cumsum(lengths)[:-1]).tolist()]
    assert np.frombuffer(raw, "<i8", count + 1, 34 + 12 * count).tolist() == [0, 1, 2, 3]
