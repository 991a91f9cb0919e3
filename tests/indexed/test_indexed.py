"""Our pairs of ``.bin`` and ``.idx`` against Megatron-core's, and against the bytes of its layout."""

from __future__ import annotations

import hashlib
import itertools
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtsft_preproc.errors import DatasetError, OutputError
from mtsft_preproc.indexed import IndexedDataset, IndexedWriter
from mtsft_preproc.indexed.layout import pack_index

pytestmark = pytest.mark.filterwarnings(
    "ignore:Transformer Engine and Apex are not installed:UserWarning",
)

DTYPES = ["uint8", "int8", "int16", "int32", "int64", "float64", "float32", "uint16"]
I32 = np.int32


@pytest.fixture(scope="module")
def megatron() -> Any:
    return pytest.importorskip("megatron.core.datasets.indexed_dataset")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("indexed")
    return (root / str(number) for number in itertools.count())


def lengths_of(items: list[npt.NDArray[Any]]) -> npt.NDArray[np.int32]:
    return np.array([len(item) for item in items], I32)


def joined(items: list[npt.NDArray[Any]], dtype: str) -> npt.NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *items])


def write(prefix: Path, *items: list[int]) -> Path:
    arrays = [np.array(item, I32) for item in items]
    with IndexedWriter(prefix) as writer:
        writer.write(joined(arrays, "int32"), lengths_of(arrays))
    return prefix


def parts(prefix: Path) -> tuple[Path, Path]:
    return prefix.with_name(f"{prefix.name}.bin"), prefix.with_name(f"{prefix.name}.idx")


@st.composite
def sequences(draw: st.DrawFn) -> tuple[str, list[npt.NDArray[Any]]]:
    dtype = draw(st.sampled_from(DTYPES))
    if dtype.startswith("float"):
        tokens: Any = st.floats(width=32, allow_nan=False)
    else:
        tokens = st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    rows = draw(st.lists(st.lists(tokens, max_size=5), max_size=6))
    return dtype, [np.array(row, dtype) for row in rows]


@st.composite
def grouped(draw: st.DrawFn) -> tuple[str, list[list[npt.NDArray[Any]]]]:
    # The groups are the calls of a writer, or the documents of a dataset.
    dtype, items = draw(sequences())
    groups = []
    while items:
        count = draw(st.integers(1, len(items)))
        groups.append(items[:count])
        items = items[count:]
    return dtype, groups


def same(found: Any, expected: list[npt.NDArray[Any]], dtype: str) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(ours, theirs)


@settings(max_examples=120, deadline=None)
@given(drawn=grouped())
def test_megatron_reads_what_we_write_and_would_write_the_same_bytes(
    megatron: Any, folders: Iterator[Path], drawn: tuple[str, list[list[npt.NDArray[Any]]]]
) -> None:
    dtype, groups = drawn
    items = [item for group in groups for item in group]
    ours = next(folders)
    theirs = ours.with_name(f"{ours.name}-megatron")
    writer = IndexedWriter(ours, dtype)
    with writer:
        for group in groups:
            writer.write(joined(group, dtype), lengths_of(group))
    builder = megatron.IndexedDatasetBuilder(f"{theirs}.bin", dtype=getattr(np, dtype))
    for item in items:
        builder.add_document(item, [len(item)])
    builder.finalize(f"{theirs}.idx")
    for mine, yours in zip(parts(ours), parts(theirs), strict=True):
        assert mine.read_bytes() == yours.read_bytes()
        assert writer.sha256[mine.suffix] == hashlib.sha256(yours.read_bytes()).hexdigest()
    # An empty file can't be mapped, which Megatron tries all the same.
    read = megatron.IndexedDataset(str(ours), mmap=bool(joined(items, dtype).size))
    same([read[at] for at in range(len(read))], items, dtype)
    assert read.document_indices.tolist() == list(range(len(items) + 1))
    same(list(IndexedDataset(ours)), items, dtype)


@settings(max_examples=120, deadline=None)
@given(drawn=grouped())
def test_we_read_what_megatron_writes(
    megatron: Any, folders: Iterator[Path], drawn: tuple[str, list[list[npt.NDArray[Any]]]]
) -> None:
    dtype, groups = drawn
    items = [item for group in groups for item in group]
    prefix = next(folders)
    builder = megatron.IndexedDatasetBuilder(f"{prefix}.bin", dtype=getattr(np, dtype))
    for group in groups:
        builder.add_document(joined(group, dtype), lengths_of(group).tolist())
    builder.finalize(f"{prefix}.idx")
    found = IndexedDataset(prefix)
    assert found.dtype == np.dtype(dtype)
    same(list(found), items, dtype)
    same(found[:], items, dtype)
    assert found.lengths.tolist() == [len(item) for item in items]
    assert found.document_index.tolist() == [0, *itertools.accumulate(map(len, groups))]


@pytest.mark.parametrize(
    ("code", "letter", "dtype"),
    [
        (1, "B", np.uint8), (2, "b", np.int8), (3, "h", np.int16), (4, "i", np.int32),
        (5, "q", np.int64), (6, "d", np.float64), (7, "f", np.float32), (8, "H", np.uint16),
    ],
)  # fmt: skip
def test_the_files_hold_these_bytes(tmp_path: Path, code: int, letter: str, dtype: Any) -> None:
    with IndexedWriter(tmp_path / "x", dtype) as writer:
        writer.write(np.array([5, 6, 7, 8], dtype), np.array([3, 0, 1], I32))
    data, index = parts(tmp_path / "x")
    width = struct.calcsize(letter)
    assert data.read_bytes() == struct.pack(f"<4{letter}", 5, 6, 7, 8)
    assert index.read_bytes() == (
        b"MMIDIDX\x00\x00"
        + struct.pack("<Q", 1)
        + struct.pack("<B", code)
        + struct.pack("<QQ", 3, 4)
        + struct.pack("<3i", 3, 0, 1)
        + struct.pack("<3q", 0, 3 * width, 3 * width)
        + struct.pack("<4q", 0, 1, 2, 3)
    )


def test_an_empty_dataset_is_a_header_and_one_border(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "x"):
        pass
    data, index = parts(tmp_path / "x")
    assert data.read_bytes() == b""
    assert index.read_bytes() == struct.pack("<9sQBQQq", b"MMIDIDX\x00\x00", 1, 4, 0, 1, 0)
    found = IndexedDataset(tmp_path / "x")
    assert (len(found), list(found), found[:]) == (0, [], [])
    with pytest.raises(IndexError):
        found[0]
    with pytest.raises(IndexError):
        found[-1]


@pytest.mark.parametrize(
    ("lengths", "dtype", "offsets"),
    [
        ([1 << 30] * 3, "<i4", [0, 1 << 32, 1 << 33]),
        ([(1 << 31) - 1] * 5, "<i4", [0, 8589934588, 17179869176, 25769803764, 34359738352]),
        ([(1 << 31) - 1] * 3, "<u1", [0, 2147483647, 4294967294]),
        ([1 << 30, 0, 7, 1], "<i8", [0, 1 << 33, 1 << 33, (1 << 33) + 56]),
        ([], "<i4", []),
        ([7], "<u2", [0]),
    ],
)
def test_offsets_do_not_overflow(lengths: list[int], dtype: str, offsets: list[int]) -> None:
    header, packed, found, documents = pack_index(np.array(lengths, I32), np.dtype(dtype))
    assert header[18:] == struct.pack("<QQ", len(lengths), len(lengths) + 1)
    assert (packed.dtype, packed.tolist()) == (np.dtype("<i4"), lengths)
    assert (found.dtype, found.tolist()) == (np.dtype("<i8"), offsets)
    assert (documents.dtype, documents.tolist()) == (np.dtype("<i8"), list(range(len(lengths) + 1)))


@settings(max_examples=60, deadline=None)
@given(drawn=grouped())
def test_megatron_would_write_the_same_bytes_for_documents_of_several_sequences(
    megatron: Any, folders: Iterator[Path], drawn: tuple[str, list[list[npt.NDArray[Any]]]]
) -> None:
    dtype, groups = drawn
    ours = next(folders)
    theirs = ours.with_name(f"{ours.name}-megatron")
    builder = megatron.IndexedDatasetBuilder(f"{theirs}.bin", dtype=getattr(np, dtype))
    for group in groups:
        builder.add_document(joined(group, dtype), lengths_of(group).tolist())
    builder.finalize(f"{theirs}.idx")
    borders = np.array([0, *itertools.accumulate(map(len, groups))], np.int64)
    with IndexedWriter(ours, dtype, borders) as writer:
        for group in groups:
            writer.write(joined(group, dtype), lengths_of(group))
    for mine, yours in zip(parts(ours), parts(theirs), strict=True):
        assert mine.read_bytes() == yours.read_bytes()
        assert writer.sha256[mine.suffix] == hashlib.sha256(yours.read_bytes()).hexdigest()


@pytest.mark.parametrize("borders", [[], [0], [0, 1], [1, 2], [0, 3], [0, 2, 1, 2]], ids=str)
def test_a_document_index_that_is_none_of_the_sequences_is_refused(
    tmp_path: Path, borders: list[int]
) -> None:
    with (
        pytest.raises(ValueError, match="does not run from 0 to 2"),
        IndexedWriter(tmp_path / "x", documents=np.array(borders, np.int64)) as writer,
    ):
        writer.write(np.array([5, 6], I32), np.array([1, 1], I32))
    assert not (tmp_path / "x.idx").exists()


def test_tokens_are_cast_to_the_type_of_the_file_and_may_be_a_strided_view(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "x", np.uint16) as writer:
        writer.write(np.array([1, 65535], np.int64), np.array([2], I32))
        writer.write(np.arange(6, dtype=np.uint16)[::2], np.array([1, 2], I32))
    assert parts(tmp_path / "x")[0].read_bytes() == struct.pack("<5H", 1, 65535, 0, 2, 4)


def test_raw_buffers_and_their_lengths_may_come_apart(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "x") as writer:
        writer.write_raw(struct.pack("<3i", 1, 2, 3), np.zeros(0, I32))
        writer.write_raw(memoryview(struct.pack("<i", 4)), np.zeros(0, I32))
        writer.write_raw(memoryview(b""), np.array([1, 3], I32))
    assert [item.tolist() for item in IndexedDataset(tmp_path / "x")] == [[1], [2, 3, 4]]


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_nothing_is_written_over(tmp_path: Path, suffix: str) -> None:
    taken = tmp_path / f"x{suffix}"
    taken.write_bytes(b"precious")
    with pytest.raises(OutputError, match=rf"x\{suffix} exists already"), IndexedWriter(tmp_path / "x"):
        pass
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {f"x{suffix}": b"precious"}


def test_after_an_error_there_is_no_index(tmp_path: Path) -> None:
    def fail_halfway() -> None:
        with IndexedWriter(tmp_path / "x") as writer:
            writer.write(np.array([1, 2], I32), np.array([2], I32))
            raise KeyError("trouble")

    with pytest.raises(KeyError, match="trouble"):
        fail_halfway()
    assert not (tmp_path / "x.idx").exists()
    with pytest.raises(DatasetError, match=r"x\.idx: no such file"):
        IndexedDataset(tmp_path / "x")


def test_lengths_that_do_not_sum_to_the_tokens_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 tokens"), IndexedWriter(tmp_path / "x") as writer:
        writer.write(np.array([1, 2, 3], I32), np.array([2], I32))
    with pytest.raises(ValueError, match="1 tokens"), IndexedWriter(tmp_path / "y") as writer:
        writer.write_raw(struct.pack("<i", 1), np.array([2], I32))
    assert not list(tmp_path.glob("*.idx"))


def test_a_type_that_the_format_lacks_is_refused_before_a_file_is_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="uint32"), IndexedWriter(tmp_path / "x", np.uint32):
        pass
    assert not list(tmp_path.iterdir())


def test_the_index_is_read_as_a_list_is(tmp_path: Path) -> None:
    rows = [[1, 2], [], [3], [4, 5, 6]]
    found = IndexedDataset(write(tmp_path / "x", *rows))
    assert len(found) == 4
    for at in range(-4, 4):
        assert found[at].tolist() == rows[at]
    whole, backwards = slice(None), slice(None, None, -1)
    for wanted in (whole, backwards, slice(1, 3), slice(-1, None), slice(9, 20), slice(0, 4, 2)):
        assert [item.tolist() for item in found[wanted]] == rows[wanted]
    for at in (4, -5, 1 << 40):
        with pytest.raises(IndexError, match="of 4"):
            found[at]


def test_what_was_read_can_not_be_written_to(tmp_path: Path) -> None:
    item = IndexedDataset(write(tmp_path / "x", [1, 2]))[0]
    with pytest.raises(ValueError, match="read-only"):
        item[0] = 9


def test_a_dataset_travels_as_its_path_alone(tmp_path: Path) -> None:
    rows = [[number] * (number % 3) for number in range(5000)]
    found = IndexedDataset(write(tmp_path / "x", *rows))
    assert found[7].tolist() == [7]
    packed = pickle.dumps(found)
    assert len(packed) < 1000
    assert [item.tolist() for item in pickle.loads(packed)] == rows


def test_a_copy_of_a_dataset_that_is_gone_is_refused(tmp_path: Path) -> None:
    packed = pickle.dumps(IndexedDataset(write(tmp_path / "x", [1])))
    (tmp_path / "x.bin").unlink()
    with pytest.raises(DatasetError, match=r"x\.bin: no such file"):
        pickle.loads(packed)


def index_bytes(
    magic: bytes = b"MMIDIDX\x00\x00",
    version: int = 1,
    code: int = 4,
    counts: tuple[int, int] = (2, 3),
    lengths: tuple[int, ...] = (2, 1),
    offsets: tuple[int, ...] = (0, 8),
    documents: tuple[int, ...] = (0, 1, 2),
) -> bytes:
    return struct.pack(
        f"<9sQBQQ{len(lengths)}i{len(offsets)}q{len(documents)}q",
        magic, version, code, *counts, *lengths, *offsets, *documents,
    )  # fmt: skip


GOOD = index_bytes()
TOKENS = struct.pack("<3i", 10, 11, 12)


def test_the_undamaged_pair_opens(tmp_path: Path) -> None:
    (tmp_path / "x.idx").write_bytes(GOOD)
    (tmp_path / "x.bin").write_bytes(TOKENS)
    assert [item.tolist() for item in IndexedDataset(tmp_path / "x")] == [[10, 11], [12]]


@pytest.mark.parametrize(
    ("index", "tokens", "message"),
    [
        (b"", TOKENS, r"x\.idx: 0 bytes"),
        (GOOD[:33], TOKENS, r"x\.idx: 33 bytes"),
        (GOOD[:34], TOKENS, r"x\.idx: 34 bytes, but its header .*makes 82"),
        (GOOD[:-1], TOKENS, r"x\.idx: 81 bytes, but its header .*makes 82"),
        (GOOD + b"\x00", TOKENS, r"x\.idx: 83 bytes, but its header .*makes 82"),
        (index_bytes(magic=b"MMIDIDX\x00\x01"), TOKENS, r"x\.idx: not an \.idx file"),
        (b"\x00" * len(GOOD), TOKENS, r"x\.idx: not an \.idx file"),
        (index_bytes(version=2), TOKENS, r"x\.idx: index version 2, expected 1"),
        (index_bytes(code=0), TOKENS, r"x\.idx: unknown token type code 0"),
        (index_bytes(code=9), TOKENS, r"x\.idx: unknown token type code 9"),
        (index_bytes(code=5), TOKENS, r"x\.idx: sequence 0 ends at byte 16, .* starts at 8"),
        (index_bytes(counts=(3, 3)), TOKENS, r"x\.idx: 82 bytes"),
        (index_bytes(counts=(2, 1 << 63)), TOKENS, r"x\.idx: 82 bytes"),
        (index_bytes(lengths=(1, 2)), TOKENS, r"x\.idx: sequence 0 ends at byte 4, .* starts at 8"),
        (index_bytes(lengths=(-1, 4), offsets=(0, -4)), TOKENS, r"x\.idx: a negative length"),
        (index_bytes(lengths=(1, 1), offsets=(4, 8)), TOKENS, r"x\.idx: .*first offset that is not 0"),
        (index_bytes(documents=(0, 1, 3)), TOKENS, r"x\.idx: "),
        (index_bytes(documents=(1, 1, 2)), TOKENS, r"x\.idx: "),
        (index_bytes(counts=(2, 0), documents=()), TOKENS, r"x\.idx: "),
        (GOOD, TOKENS[:-1], r"x\.bin: 11 bytes, but x\.idx makes 12"),
        (GOOD, TOKENS[:-4], r"x\.bin: 8 bytes"),
        (GOOD, TOKENS + b"\x00" * 4, r"x\.bin: 16 bytes"),
        (GOOD, b"", r"x\.bin: 0 bytes"),
        (None, TOKENS, r"x\.idx: no such file"),
        (GOOD, None, r"x\.bin: no such file"),
    ],
    ids=[
        "empty",
        "short header",
        "header alone",
        "one byte less",
        "one byte more",
        "magic",
        "zeros",
        "version",
        "type 0",
        "type 9",
        "wider type",
        "sequence count",
        "border count",
        "lengths",
        "negative length",
        "first offset",
        "last border",
        "first border",
        "no borders",
        "bin byte less",
        "bin token less",
        "bin token more",
        "bin empty",
        "no idx",
        "no bin",
    ],
)
def test_a_damaged_pair_is_refused_by_the_name_of_its_file(
    tmp_path: Path, index: bytes | None, tokens: bytes | None, message: str
) -> None:
    if index is not None:
        (tmp_path / "x.idx").write_bytes(index)
    if tokens is not None:
        (tmp_path / "x.bin").write_bytes(tokens)
    with pytest.raises(DatasetError, match=message):
        IndexedDataset(tmp_path / "x")


def test_every_flipped_bit_of_the_index_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(TOKENS)
    raw = bytearray(GOOD)
    middle = len(GOOD) - 16  # a document may well end elsewhere
    for at in range(len(raw)):
        for bit in range(8):
            # Of types of one width no one can tell which was meant.
            if (at == 17 and bit in (0, 1)) or middle <= at < middle + 8:
                continue
            raw[at] ^= 1 << bit
            (tmp_path / "x.idx").write_bytes(raw)
            with pytest.raises(DatasetError, match=r"x\.(idx|bin): "):
                IndexedDataset(tmp_path / "x")
            raw[at] ^= 1 << bit


def test_we_read_the_pairs_that_a_trainer_made_as_megatron_does(shared: Path, megatron: Any) -> None:
    folder = shared / "golden" / "inputs" / "edge" / "merge"
    prefixes = sorted(path.with_suffix("") for path in folder.glob("*.idx"))
    assert len(prefixes) == 6
    for prefix in prefixes:
        theirs = megatron.IndexedDataset(str(prefix))
        same(list(IndexedDataset(prefix)), [theirs[at] for at in range(len(theirs))], "int32")
