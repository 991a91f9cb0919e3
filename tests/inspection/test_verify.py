"""Sound outputs of every kind are found whole, and what is no sound output is told as what it is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from arranged import dialogues, make, manifest_of, write
from damage import KINDS, change_json, digest, edit, reseal

from mtsft_preproc import hashing, publish
from mtsft_preproc.cli import main
from mtsft_preproc.errors import DatasetError, SettingsError
from mtsft_preproc.indexed import open_published
from mtsft_preproc.inspection import verify

CopyOf = Callable[[str], Path]

#: What can't be checked of some kinds, and has to be told.
NOT_CHECKED = {
    "duplicates": "read several times",
    "merged_sides": "not told where sides of splits were merged",
    "repacked_split": "counts of each source",
    "side": "that stands with the run split",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_output_is_whole(kind: str, outputs: dict[str, Path]) -> None:
    report = verify(str(outputs[kind]))
    assert [line for check in report.checks for line in check.failures] == []
    assert report.ok
    said = [why for check in report.checks for why in check.not_checked]
    assert len(said) == (kind in NOT_CHECKED)
    assert NOT_CHECKED.get(kind, "") in "".join(said)


@pytest.mark.parametrize("kind", ["packed", "split", "text"])
def test_the_helper_of_these_tests_makes_hashes_right(kind: str, copy_of: CopyOf) -> None:
    prefix = copy_of(kind)
    edit(prefix, lambda manifest: manifest.update(version="another"))
    reseal(prefix)
    assert verify(str(prefix)).ok


def test_what_was_checked_is_counted(outputs: dict[str, Path]) -> None:
    manifest = manifest_of(outputs["packed"])
    told = {check.name: check.checked for check in verify(str(outputs["packed"])).checks}
    assert list(told) == [
        "manifest", "files", "timings", "index", "samples", "tokens", "counts", "rejected", "records",
    ]  # fmt: skip
    assert told["manifest"] == "sealed; names 8 files"
    assert f"{manifest['samples']} samples" in told["samples"]
    tokens = manifest["items"] * 200
    assert told["tokens"] == f"{tokens:,} ids below 4,005, {manifest['trained_tokens']:,} labels"
    assert f"{manifest['tokens']:,} tokens" in told["counts"]
    assert told["rejected"] == "2 rejected records, 0 lost samples"
    assert told["records"] == "32 read = 30 kept + 2 rejected; 1 files, 1 sources"


def test_ends_of_turns_that_are_taught_late_are_counted(outputs: dict[str, Path]) -> None:
    told = {check.name: check.checked for check in verify(str(outputs["late"])).checks}
    # Of each dialogue of 1, 2 or 3 rounds all ends but the last.
    assert told["tokens"].endswith(
        f", of which {sum(number % 3 for number in range(20))} teach an end of turn late"
    )


# The command.


def test_the_command(outputs: dict[str, Path], copy_of: CopyOf, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(outputs["plain"])]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "manifest  ok      sealed; names 8 files"
    assert lines[-1].startswith(f"{outputs['plain']}: whole (")
    prefix = copy_of("plain")
    prefix.with_name("plain_packed_labels_document.bin").unlink()
    assert main(["verify", str(prefix), "--workers", "1"]) == 1
    text = capsys.readouterr().out
    assert "files     FAILED" in text
    assert (
        "plain_packed_labels_document.bin: No such file or directory, but plain.manifest.json names it"
        in text
    )
    assert "not checked: tokens: an index is damaged" in text
    assert f"{prefix}: NOT WHOLE: " in text


def test_json(outputs: dict[str, Path], copy_of: CopyOf, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--json", str(outputs["split"])]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["prefix"]) == (True, str(outputs["split"]))
    assert {check["output"] for check in found["checks"]} == {
        "split",
        "split_train",
        "split_valid",
        "split_test",
    }
    prefix = copy_of("plain")
    with open(f"{prefix}.rejected.jsonl", "ab") as file:
        file.write(b"more\n")
    assert main(["verify", "--json", str(prefix)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["ok"]
    assert [check["name"] for check in found["checks"] if not check["ok"]] == ["files", "rejected"]


def test_a_dataset_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path / "data")]) == 2
    assert "data: no dataset there; expected an output prefix" in capsys.readouterr().err
    with pytest.raises(DatasetError, match="No such file or directory"):
        verify(str(tmp_path / "folder" / "data"))
    for prefix in ("", "/", f"{tmp_path}/"):
        with pytest.raises(SettingsError, match="ends in no name"):
            verify(prefix)


def test_a_dataset_that_lost_its_manifest(copy_of: CopyOf) -> None:
    prefix = copy_of("plain")
    Path(f"{prefix}.manifest.json").unlink()
    (check,) = verify(str(prefix)).checks
    assert check.failures == ["plain.manifest.json: no such file, but plain.sources.parquet is there"]


def test_few_failures_are_told_and_all_are_counted(
    copy_of: CopyOf, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = copy_of("plain")
    path = prefix.with_name("plain_packed_attention_mask_document.bin")
    path.write_bytes(bytes(path.stat().st_size))
    reseal(prefix)
    assert main(["verify", str(prefix)]) == 1
    lines = capsys.readouterr().out.splitlines()
    shown = [line for line in lines if "_attention_mask_document.bin, byte " in line]
    assert len(shown) == 20
    assert shown[1].split() == [
        "plain_packed_attention_mask_document.bin,", "byte", "4", "(item", "0,", "token", "1):", "0,",
        "expected", "1",
    ]  # fmt: skip
    assert f"          and {path.stat().st_size // 4 - 20:,} more" in lines


@pytest.mark.parametrize("threads", [1, 3])
def test_stretches_and_threads_change_nothing(
    threads: int, outputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtsft_preproc.inspection.verify import pairs, tokens

    for kind in ("neat", "pairwise", "r1", "late", "one_text"):
        calm = [check.describe() for check in verify(str(outputs[kind])).checks if check.name != "files"]
        with monkeypatch.context() as patch:
            patch.setattr(tokens, "_AT_ONCE", 37)
            patch.setattr(pairs, "_AT_ONCE", 3)
            own = verify(str(outputs[kind]), threads)
        assert [check.describe() for check in own.checks if check.name != "files"] == calm


# Publications that are under way.


class Stopped(BaseException):
    """Stands for a death at a certain point."""


@pytest.mark.parametrize("renames", [0, 5, 12])
def test_a_publication_that_was_interrupted_is_named(
    renames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: None
) -> None:
    source = write(tmp_path / "in.jsonl", dialogues(30))
    real, count = os.replace, 0

    def replace(source: Any, target: Any) -> None:
        nonlocal count
        if Path(target).parent == tmp_path and count == renames:
            raise Stopped
        count += Path(target).parent == tmp_path
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(publish.os, "replace", replace)
        with pytest.raises(Stopped):
            make(source, tmp_path / "data", split=(6.0, 4.0), workers=1, engine="serial")
    for side in ("", "_train", "_valid"):
        report = verify(str(tmp_path / f"data{side}"))
        (line,) = (line for check in report.checks for line in check.failures)
        assert line.endswith("its publication was interrupted; run the same command again to finish it")
    make(source, tmp_path / "data", split=(6.0, 4.0), workers=1, engine="serial")
    assert verify(str(tmp_path / "data")).ok


# Seals and hashes.


def test_an_old_manifest_without_a_seal_is_opened_and_told(copy_of: CopyOf) -> None:
    prefix = copy_of("plain")
    path = Path(f"{prefix}.manifest.json")
    manifest = manifest_of(prefix)
    seal = manifest.pop("manifest_sha256")
    path.write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
    assert open_published(prefix).manifest == manifest
    found = {check.name: check.failures for check in verify(str(prefix)).checks if check.failed}
    assert found == {
        "manifest": [
            "plain.manifest.json: no seal at its end; expected 'manifest_sha256' as its last member"
        ],
        "timings": [f"plain.timings.json: manifest_sha256 '{seal[:19]}, but plain.manifest.json has None"],
    }


def test_the_seal_is_the_sha256_with_zeros_in_its_place(outputs: dict[str, Path]) -> None:
    for suffix, name in ((".manifest.json", "manifest_sha256"), (".timings.json", "timings_sha256")):
        raw = Path(f"{outputs['plain']}{suffix}").read_bytes()
        seal = json.loads(raw)[name]
        assert list(json.loads(raw))[-1] == name
        assert raw.count(seal.encode()) == 1
        assert digest(raw.replace(seal.encode(), b"0" * 64)) == seal


def test_hashes_by_chunk_are_checked(copy_of: CopyOf, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = copy_of("plain")
    name = "plain_packed_labels_document.bin"
    raw = prefix.with_name(name).read_bytes()
    chunks = [raw[start : start + 1000] for start in range(0, len(raw), 1000)]
    assert len(chunks) > 2

    import hashlib

    by_chunk = digest(b"".join(hashlib.sha256(chunk).digest() for chunk in chunks))

    def other_form(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = {"bytes": len(raw), "sha256_by_chunk": by_chunk}

    change_json(Path(f"{prefix}.manifest.json"), other_form)
    own = {entry: manifest_of(prefix)[entry] for entry in ("manifest_sha256",)}
    change_json(Path(f"{prefix}.timings.json"), lambda content: content.update(own))
    (line,) = (line for check in verify(str(prefix)).checks for line in check.failures)
    assert line.startswith(f"{name}: its sha256 is that of a fi")
    monkeypatch.setattr(hashing, "CHUNK", 1000)
    assert verify(str(prefix)).ok


def test_a_copy_under_another_name_is_told(copy_of: CopyOf, tmp_path: Path) -> None:
    prefix = copy_of("plain")
    for path in list(tmp_path.glob("plain*")):
        shutil.move(path, tmp_path / path.name.replace("plain", "renamed"))
    report = verify(str(prefix.with_name("renamed")))
    (check, *_) = report.checks
    assert "'plain.rejected.jsonl' is no file of renamed; was the output renamed?" in check.failures[0]


# Timings.


def test_the_timings_say_how_a_run_went(outputs: dict[str, Path]) -> None:
    for kind, command in (("plain", "preprocess"), ("repacked", "repack"), ("merged", "merge")):
        found = json.loads(Path(f"{outputs[kind]}.timings.json").read_text("utf-8"))
        assert found["command"] == command
        assert found["fingerprint"] == manifest_of(outputs[kind])["fingerprint"]
        assert found["began"] <= found["ended"]
        assert found["began"].endswith("+00:00")
        assert found["host"] == os.uname().nodename
        assert (
            found["wall_seconds"].keys()
            == {
                "preprocess": {"plan", "encode", "gather", "publish"},
                "repack": {"check", "gather", "publish"},
                "merge": {"merge"},
            }[command]
        )
        assert all(value >= 0 for value in found["wall_seconds"].values())
        assert (found["workers"], found["engine"]) == (
            (None, None) if command == "merge" else (1, "serial")
        )
    found = json.loads(Path(f"{outputs['plain']}.timings.json").read_text("utf-8"))
    assert {"read", "tokenize", "write"} <= found["cpu_seconds"].keys()
    assert found["peak_memory_bytes"] > 1 << 24
    assert not list(outputs["split"].parent.glob("split_*.timings.json"))


def test_an_output_that_is_replaced_leaves_no_timings_of_a_side(tmp_path: Path, in_process: None) -> None:
    source = write(tmp_path / "in.jsonl", dialogues(30))
    here = {"workers": 1, "engine": "serial", "overwrite": True}
    make(source, tmp_path / "data_train", **here)
    assert (tmp_path / "data_train.timings.json").exists()
    make(source, tmp_path / "data", split=(6.0, 4.0), **here)
    assert not (tmp_path / "data_train.timings.json").exists()
    assert verify(str(tmp_path / "data")).ok
    make(source, tmp_path / "data", **here)
    assert verify(str(tmp_path / "data")).ok


def test_a_side_that_is_written_over_another_output_holds_nothing_of_it(
    tmp_path: Path, in_process: None
) -> None:
    # Of the one that was there: pairs, two files of each of four datasets, and rejections of its own.
    pairs = [{"instruction": f"ask {n}", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(6)]
    here = {"workers": 1, "engine": "serial", "overwrite": True}
    one = write(tmp_path / "pairs.jsonl", pairs)
    make(one, tmp_path / "data_train", handler_name="alpaca-pairwise", map_keys="{}", **here)
    assert len(list(tmp_path.glob("data_train_packed_*_document*"))) == 8
    make(write(tmp_path / "in.jsonl", dialogues(30)), tmp_path / "data", split=(6.0, 4.0), **here)
    fields = ("input_ids", "labels", "attention_mask")
    assert {path.name for path in tmp_path.glob("data_train*")} == {
        *(f"data_train_packed_{field}_document.{end}" for field in fields for end in ("bin", "idx")),
        "data_train.manifest.json",
        "data_train.sources.parquet",
    }
    assert verify(str(tmp_path / "data")).ok


def test_the_manifest_tells_versions_of_libraries(outputs: dict[str, Path]) -> None:
    import tokenizers
    import transformers

    for kind in ("plain", "merged", "repacked", "side"):
        libraries = manifest_of(outputs[kind])["libraries"]
        assert libraries["tokenizers"] == tokenizers.__version__
        assert libraries["transformers"] == transformers.__version__


def test_samples_are_compared_with_the_inputs(
    outputs: dict[str, Path], copy_of: CopyOf, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(outputs["packed"]), "--against", "--samples", "0"]) == 0
    manifest = json.loads(outputs["packed"].with_name("packed.manifest.json").read_text("utf-8"))
    group = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("against"))
    assert f"ok      {manifest['samples']:,} samples of {manifest['records']['kept']:,} records" in group


def test_an_input_that_is_another_is_told(
    outputs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of what is given: before anything is looked at, as a wrong setting."""
    other = tmp_path / "other.jsonl"
    other.write_text('{"instruction": "a", "output": "b"}\n')
    [own] = manifest_of(outputs["packed"])["inputs"]
    for given, told in (
        (
            [other],
            f"{other}: 36 bytes; expected {own['path']} of which the dataset was made, {own['bytes']} ",
        ),
        ([own["path"], own["path"]], "the dataset was made of 1 files (in.jsonl); expected as many, or"),
        ([tmp_path / "nope.jsonl"], f"no such file or folder: {tmp_path}/nope.jsonl"),
    ):
        assert main(["verify", str(outputs["packed"]), "--against", *map(str, given)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"error: --against: {told}")
        assert err.count("\n") == 1
        assert "--input" not in err


def test_where_an_input_is_gone_or_has_changed_a_dataset_is_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], in_process: None
) -> None:
    source = write(tmp_path / "in.jsonl", dialogues(5))
    prefix = make(source, tmp_path / "out" / "a", workers=1, engine="serial")
    raw, made = source.read_bytes(), Path(f"{prefix}.manifest.json").stat().st_mtime_ns
    other = raw.replace(b"answer", b"anfwer")
    assert other != raw
    for content, age, why in (
        (None, 0, "no such file; the dataset was made of it"),
        (raw + b" ", 1, f"changed since the dataset was made of it: {len(raw) + 1} bytes"),
        (other, 10**9, "changed since the dataset was made of it: sha256"),
        (other, -(10**9), "changed since the dataset was made of it: sha256"),
    ):
        source.unlink(missing_ok=True)
        if content is not None:
            source.write_bytes(content)
            os.utime(source, ns=(made + age, made + age))
        assert main(["verify", str(prefix), "--against"]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[-3] == "against   --"
        assert lines[-2].startswith(f"          not checked: can't be compared: {source}: {why}")
        assert lines[-1].startswith(f"{prefix}: whole, but not compared with its inputs (")
    assert main(["verify", str(prefix), "--against", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["whole"]) == (False, True)
    own = found["checks"][-1]
    assert (own["name"], own["ok"], own["done"], own["failed"]) == ("against", False, False, 0)
    assert "can't be compared" in own["not_checked"][0]


def test_inputs_of_a_damaged_dataset_leave_that_to_the_report(
    copy_of: CopyOf, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = copy_of("plain")
    [own] = manifest_of(prefix)["inputs"]
    edit(prefix, lambda manifest: manifest["inputs"][0].pop("path"))
    assert main(["verify", str(prefix), "--against", own["path"]]) == 1
    assert "NOT WHOLE" in capsys.readouterr().out
    for nothing in ("", "/", str(prefix.with_name("other"))):
        assert main(["verify", nothing, "--against", own["path"]]) == 2
        assert "--against" not in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["0", "-1"])
def test_threads_are_at_least_one(
    workers: str, outputs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(outputs["plain"]), "--workers", workers]) == 2
    assert f"error: --workers: expected at least 1, got {workers}\n" == capsys.readouterr().err


def test_flags_of_the_comparison_belong_to_it(
    outputs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(outputs["packed"]), "--samples", "3"]) == 2
    assert "--samples: belongs to --against" in capsys.readouterr().err
