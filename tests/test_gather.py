"""Copying samples to where they were arranged, and cutting that into tasks."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import thorough

from mtsft_preproc import gather
from mtsft_preproc.arrange import Arrangement, ArrangementSettings, PackSettings, arrange
from mtsft_preproc.encoding import DatasetSpec
from mtsft_preproc.errors import DatasetError
from mtsft_preproc.gather import (
    GatherItems,
    Range,
    check_part,
    gathered_datasets,
    item_lengths,
    plan_ranges,
    save_order,
)
from mtsft_preproc.mixing import Mix, Source
from mtsft_preproc.parts import Container, ContainerWriter
from mtsft_preproc.survey import Questions, SampleIndex, Survey, Surveyor

I32 = np.int32
CONCAT = Mix("concat", "samples", (Source("all"),))
PAD, IGNORED = 0, -100


def bare(lengths: list[int], **groups: list[int]) -> Survey:
    """A survey of samples whose tokens lie nowhere."""
    own = {"sample": lengths, **groups}
    return Survey(
        {name: np.array(values, I32) for name, values in own.items()},
        np.array([0, len(lengths)]),
        SampleIndex("", (), (), ()),
    )


@thorough(150)
@given(
    st.lists(st.integers(1, 40), max_size=40),
    st.none() | st.integers(40, 60),
    st.integers(1, 120),
    st.booleans(),
    st.integers(1, 9),
)
def test_ranges_hold_every_item_once(
    lengths: list[int], capacity: int | None, tokens: int, shuffle: bool, chunk: int
) -> None:
    survey = bare(lengths)
    packing = None if capacity is None else PackSettings(capacity)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gather, "_RANGE_TOKENS", tokens)
        patch.setattr(gather, "_CHUNK", chunk)
        (arrangement,) = arrange(survey, ArrangementSettings(CONCAT, packing, shuffle=shuffle))
        ranges = plan_ranges(arrangement, survey)
    assert [span.index for span in ranges] == list(range(len(ranges)))
    for name, end in (("items", arrangement.items), ("places", len(lengths))):
        borders = [getattr(span, name) for span in ranges]
        assert [low for low, _ in borders] == [0, *(high for _, high in borders)][: len(borders)]
        assert all(low < high for low, high in borders)
        assert (borders[-1][1] if borders else 0) == end
    item = np.arange(len(lengths)) if arrangement.item is None else arrangement.item
    for span in ranges:
        samples = arrangement.in_order(*span.places)
        assert {int(item[sample]) for sample in samples} == set(range(*span.items))
        if capacity is None:
            # What begins in a range may reach beyond it by the longest sample.
            assert sum(lengths[sample] for sample in samples) < tokens + 40
        else:
            assert span.items[1] - span.items[0] <= max(1, tokens // capacity)


def test_a_range_counts_the_tokens_of_all_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "_RANGE_TOKENS", 10)
    survey = bare([3, 3, 3, 3], rejected=[2, 2, 2, 2])
    spans = plan_ranges(Arrangement("", 4, 4, order=np.array([3, 2, 1, 0])), survey)
    assert [span.items for span in spans] == [(0, 2), (2, 4)]


# Samples of three files, written down: (file, ids), one line per sample.
SAMPLES = [
    (0, [11, 12, 13]),
    (0, [21]),
    (0, [31, 32]),
    (1, [41, 42, 43, 44]),
    (2, [51, 52, 53, 54]),
    (2, [61, 62, 63]),
]


def labels_of(ids: list[int]) -> list[int]:
    """All are trained but the last."""
    return [*ids[:-1], IGNORED] if len(ids) > 1 else ids


@pytest.fixture
def survey(tmp_path: Path) -> Survey:
    """A survey of :data:`SAMPLES`, whose tokens lie in three part files."""
    streams = (("packed_input_ids", "sample"), ("packed_labels", "sample"))
    own = Surveyor(tmp_path / "survey", streams, ["sample"], 1, Questions(), 6)
    for file in range(3):
        path = tmp_path / f"{file}.part"
        mine = [ids for number, ids in SAMPLES if number == file]
        places: dict[str, list[int]] = {name: [] for name, _ in streams}
        # A block of its own for each sample but the first two: so that there are gaps between some.
        blocks = [mine[:2], *([ids] for ids in mine[2:])]
        at = 12
        with ContainerWriter(path, {"number": file}, [name for name, _ in streams]) as writer:
            for block in blocks:
                content = {
                    "packed_input_ids": [token for ids in block for token in ids],
                    "packed_labels": [label for ids in block for label in labels_of(ids)],
                }
                for name, _ in streams:
                    for ids in block:
                        places[name].append(at)
                        at += 4 * len(ids)
                writer.add({name: np.array(values, I32) for name, values in content.items()})
        own.add(
            source=0,
            file=file,
            paths=(str(path),) * 2,
            lengths={"sample": np.array([len(ids) for ids in mine], I32)},
            places={name: np.array(values, np.int64) for name, values in places.items()},
            rows=np.arange(len(mine)),
            digests=np.zeros((len(mine), 2), np.uint64),
            trained=np.ones(len(mine), I32),
        )
    return own.finish()


def gathered(
    survey: Survey, arrangement: Arrangement, folder: Path, spans: list[Range], mask: bool = False
) -> dict[str, list[int]]:
    """Run the task over ranges; return what it wrote, range behind range."""
    save_order(arrangement, folder / "order")
    (folder / "all").mkdir(parents=True, exist_ok=True)
    task = GatherItems(
        "f",
        survey.index,
        str(folder / "order"),
        str(folder / "all"),
        arrangement.packing,
        {"packed_input_ids": PAD, "packed_labels": IGNORED},
        ("packed_labels",),
        "packed_attention_mask" if mask else None,
    )
    found: dict[str, list[int]] = {}
    for span in spans:
        assert not task.finished(span)
        task(span)
        assert task.finished(span)
        container = Container(task.path(span))
        for name in container.streams:
            raw = b"".join(container.tokens(name))
            found.setdefault(name, []).extend(np.frombuffer(raw, "<i4").tolist())
    return found


def test_packs_with_a_multiple_and_numbers(survey: Survey, tmp_path: Path) -> None:
    # Items of 8: samples 3 and 0; 5 and 4; 2; aligned to 2. Sample 1 is left out.
    arrangement = Arrangement(
        "", 5, 3,
        samples=np.array([0, 2, 3, 4, 5]),
        item=np.array([0, 2, 0, 1, 1]),
        order=np.array([0, 2, 3, 4, 1]),
        first=np.array([0, 2, 4, 5]),
        packing=PackSettings(8, multiple=2, neat=True),
    )  # fmt: skip
    wanted = {
        "packed_input_ids": [
            11, 12, 13, PAD, 41, 42, 43, 44,
            51, 52, 53, 54, 61, 62, 63, PAD,
            31, 32, PAD, PAD, PAD, PAD, PAD, PAD,
        ],
        # The first label of each, and what the samples themselves leave out, is ignored.
        "packed_labels": [
            -100, 12, -100, -100, -100, 42, 43, -100,
            -100, 52, 53, -100, -100, 62, -100, -100,
            -100, -100, -100, -100, -100, -100, -100, -100,
        ],
        "packed_attention_mask": [
            1, 1, 1, 0, 2, 2, 2, 2,
            1, 1, 1, 1, 2, 2, 2, 0,
            1, 1, 0, 0, 0, 0, 0, 0,
        ],
    }  # fmt: skip
    whole = [Range(0, (0, 3), (0, 5))]
    assert gathered(survey, arrangement, tmp_path / "one", whole, mask=True) == wanted
    each = [Range(0, (0, 1), (0, 2)), Range(1, (1, 2), (2, 4)), Range(2, (2, 3), (4, 5))]
    assert gathered(survey, arrangement, tmp_path / "three", each, mask=True) == wanted
    lengths = item_lengths(arrangement, survey, tmp_path / "one" / "order")
    assert {name: own.tolist() for name, own in lengths.items()} == {"sample": [8, 8, 8]}


@pytest.mark.parametrize(
    "order",
    [
        [0, 1, 2, 3, 4, 5],  # as they lie
        [3, 4, 5, 0, 1, 2],  # runs, file by file
        [5, 4, 3, 2, 1, 0],
        [2, 0, 2, 1, 2, 0, 1, 1],  # again and again
        [4],
        [3, 5],  # one begins where, in another file, the other one ends
    ],
)
def test_single_samples_in_any_order(survey: Survey, tmp_path: Path, order: list[int]) -> None:
    arrangement = Arrangement("", len(order), len(order), samples=np.array(order), ascending=False)
    for number, borders in enumerate(([0, len(order)], list(range(len(order) + 1)))):
        pairs = list(itertools.pairwise(borders))
        spans = [Range(place, pair, pair) for place, pair in enumerate(pairs)]
        found = gathered(survey, arrangement, tmp_path / str(number), spans)
        # Alone, a sample keeps its first label.
        assert found == {
            "packed_input_ids": [token for own in order for token in SAMPLES[own][1]],
            "packed_labels": [label for own in order for label in labels_of(SAMPLES[own][1])],
        }
        lengths = item_lengths(arrangement, survey, tmp_path / str(number) / "order")
        assert lengths["sample"].tolist() == [len(SAMPLES[own][1]) for own in order]


@thorough(60)
@given(st.data())
def test_random_packs(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("random")
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=14))
    multiple = data.draw(st.integers(1, 3))
    capacity = data.draw(st.integers(4, 8)) * 3 * multiple
    content = [np.arange(length, dtype=I32) + 100 * (at + 1) for at, length in enumerate(lengths)]
    cut = data.draw(st.integers(0, len(lengths)))
    streams = (("packed_input_ids", "sample"),)
    own = Surveyor(folder / "survey", streams, ["sample"], 1, Questions(), 1)
    for file, mine in enumerate((content[:cut], content[cut:])):
        path = folder / f"{file}.part"
        with ContainerWriter(path, {}, ["packed_input_ids"]) as writer:
            writer.add({"packed_input_ids": np.concatenate([np.zeros(0, I32), *mine])})
        sizes = np.array([len(ids) for ids in mine], I32)
        starts = 12 + 4 * (np.cumsum(sizes, dtype=np.int64) - sizes)
        own.add(
            0, file, (str(path),), {"sample": sizes}, {"packed_input_ids": starts}, np.arange(len(mine)),
            np.zeros((len(mine), 2), np.uint64), sizes,
        )  # fmt: skip
    survey = own.finish()
    packing = PackSettings(capacity, multiple, neat=True)
    (arrangement,) = arrange(survey, ArrangementSettings(CONCAT, packing, shuffle=data.draw(st.booleans())))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gather, "_RANGE_TOKENS", data.draw(st.integers(1, 200)))
        spans = plan_ranges(arrangement, survey)
    found = gathered(survey, arrangement, folder, spans, mask=True)
    ids = np.full((arrangement.items, capacity), PAD, I32)
    mask = np.zeros_like(ids)
    assert arrangement.item is not None
    assert arrangement.offset is not None
    for sample, tokens in enumerate(content):
        item, offset = int(arrangement.item[sample]), int(arrangement.offset[sample])
        assert offset % multiple == 0
        place = slice(offset, offset + len(tokens))
        assert (mask[item, place] == 0).all()
        ids[item, place] = tokens
        before = (arrangement.item == item) & (arrangement.offset < offset)
        mask[item, place] = 1 + int(before.sum())
    assert found == {
        "packed_input_ids": ids.ravel().tolist(),
        "packed_attention_mask": mask.ravel().tolist(),
    }


def test_a_damaged_part_is_found_out(survey: Survey, tmp_path: Path) -> None:
    path = tmp_path / "1.part"
    check_part(str(path))
    raw = bytearray(path.read_bytes())
    raw[14] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DatasetError, match=r"1\.part: damaged packed_input_ids"):
        check_part(str(path))


def test_the_file_of_another_run_or_range_is_not_taken(survey: Survey, tmp_path: Path) -> None:
    arrangement = Arrangement("", 6, 6)
    span = Range(0, (0, 6), (0, 6))
    gathered(survey, arrangement, tmp_path, [span])
    given = (survey.index, str(tmp_path / "order"), str(tmp_path / "all"), None, {})
    assert GatherItems("f", *given).finished(span)
    assert not GatherItems("other", *given).finished(span)
    assert not GatherItems("f", *given).finished(Range(0, (0, 5), (0, 5)))
    assert not GatherItems("f", *given).finished(Range(1, (0, 6), (0, 6)))


def test_a_mask_that_tells_samples_apart_is_stored() -> None:
    mask = DatasetSpec("packed_attention_mask", "sample", stored=False)
    ids = DatasetSpec("packed_input_ids", "sample")
    assert gathered_datasets([ids, mask], None) == (ids, mask)
    assert gathered_datasets([ids, mask], PackSettings(8)) == (ids, mask)
    stored = DatasetSpec("packed_attention_mask", "sample")
    assert gathered_datasets([ids, mask], PackSettings(8, neat=True)) == (ids, stored)
