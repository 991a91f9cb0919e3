"""Outputs that lie beside each other: none takes another's files, and sides of splits stay sides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from arranged import dialogues, lines, make, manifest_of, published, repacked, rows_of, samples_of, write
from in_process import InProcess

from mtsft_preproc import plan
from mtsft_preproc.cli import main
from mtsft_preproc.errors import DatasetError, RejectedDataError, SettingsError
from mtsft_preproc.indexed import open_published
from mtsft_preproc.join import join


@pytest.fixture(autouse=True, scope="module")
def in_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "TokenizerLoading", InProcess)
        yield


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", dialogues(30))


def side(prefix: Path, name: str) -> Path:
    return prefix.with_name(f"{prefix.name}_{name}")


def test_joined_sides_open_and_are_sides(source: Path, tmp_path: Path) -> None:
    others = write(tmp_path / "more.jsonl", dialogues(30, start=100))
    one, two = (make(own, tmp_path / own.stem, split=(8, 2)) for own in (source, others))
    joined = tmp_path / "joined"
    join([str(side(one, "train")), str(side(two, "train"))], str(joined))
    assert manifest_of(joined)["split"] == {"side": "train", "shares": [0.8, 0.2], "seed": 1234}
    assert len(open_published(joined).fields["labels"]) == manifest_of(joined)["items"]
    packed = repacked(joined, tmp_path / "packed", seq_length=512, neat_pack=True)
    assert manifest_of(packed)["split"] == manifest_of(joined)["split"]
    assert sorted(own.ids for own in samples_of(packed)) == sorted(own.ids for own in samples_of(joined))


@pytest.mark.parametrize(("changes", "named"), [({"seed": 7}, "seed"), ({"split": (7.0, 3.0)}, "shares")])
def test_sides_of_other_splits_are_not_joined(
    source: Path, tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    """What one split trains on may be what the other is tested with."""
    one = make(source, tmp_path / "one", split=(8.0, 2.0))
    two = make(source, tmp_path / "two", **{"split": (8.0, 2.0), **changes})
    sides = [str(side(own, "train")) for own in (one, two)]
    with pytest.raises(DatasetError, match=f"{named} of a split"):
        join(sides, str(tmp_path / "joined"))
    with pytest.raises(DatasetError, match=f"{named} of a split"):
        repacked([Path(own) for own in sides], tmp_path / "packed", seq_length=512)


def test_what_another_run_made_of_a_side_stays(source: Path, tmp_path: Path) -> None:
    run = make(source, tmp_path / "run", split=(8, 2))
    newer = make(source, side(run, "train"), seq_length=90, overwrite=True)
    before = published(newer)
    make(source, run, overwrite=True)
    assert published(newer) == before
    assert not side(run, "valid").with_name("run_valid.manifest.json").exists()


@pytest.mark.parametrize("changes", [{}, {"split": (1.0, 1.0)}])
def test_repacking_takes_no_input_away(source: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    run = make(source, tmp_path / "run", split=(8, 2))
    before = published(run)
    with pytest.raises(SettingsError, match="is an input and would be replaced"):
        repacked(side(run, "train"), run, seq_length=512, overwrite=True, **changes)
    assert {name: raw for name, raw in published(run).items() if "lock" not in name} == before


def test_a_side_that_is_shuffled_later_has_the_order_of_the_first_run(source: Path, tmp_path: Path) -> None:
    whole = make(source, tmp_path / "whole", split=(8, 2), pack=True, seq_length=512, shuffle=True)
    plain = make(source, tmp_path / "plain", split=(8, 2), seq_length=512)
    for name in ("train", "valid"):
        packed = repacked(side(plain, name), tmp_path / name, seq_length=512, shuffle=True)
        wanted = published(side(whole, name))
        for file, raw in published(packed).items():
            if file.endswith((".bin", ".idx", ".parquet")):
                assert raw == wanted[file], file


def test_equal_rows_at_a_seam_are_two_records(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", dialogues(1))
    one, two = (make(source, tmp_path / name, shuffle=name == "two") for name in ("one", "two"))
    joined = tmp_path / "joined"
    join([str(one), str(two)], str(joined))
    found = repacked(joined, tmp_path / "found", dedup="exact")
    assert len(rows_of(found)) == 1
    assert [reason for _, _, reason in lines(found)] == ["duplicate"]
    assert manifest_of(found)["records"]["read"] == 2


def test_a_mix_that_no_disk_holds_is_refused_at_once(source: Path, tmp_path: Path) -> None:
    spec = tmp_path / "mix.yaml"
    spec.write_text(f"sources: {{a: {{input: '{source}', handler: alpaca, epochs: 1.0e+13}}}}")
    with pytest.raises(RejectedDataError, match=r"source 'a': 1e\+13 passes over its 30 records"):
        make(source, tmp_path / "out", mix=str(spec), handler_name="auto")


def test_a_sequence_that_no_index_holds_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--seq-length: expected less than"):
        make(source, tmp_path / "out", pack=True, seq_length=3_000_000_000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--unpacked", "--neat-pack"], "--neat-pack: belongs to packs"),
        (["--unpacked", "--pack-scope", "global"], "--pack-scope: belongs to packs"),
        (["--seq-length", "9", "--overlong", "recent"], "--overlong: expected drop or fail"),
        (["--seq-length", "9", "--split", "1e308,1e308"], "--split: expected two or three shares"),
    ],
)
def test_wrong_flags_of_repack_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["repack", "x", "--output-prefix", str(tmp_path / "y"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
