"""Files that are read by libraries, of which anything may be damaged."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import zlib
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from fuzzing.engine import Target
from fuzzing.mutation import havoc
from mtsft_preproc.dialogue import Record, Rejection
from mtsft_preproc.errors import InputError
from mtsft_preproc.readers import InputFile, Shard, csv, jsonl, readers
from mtsft_preproc.readers.discover import find_inputs
from mtsft_preproc.readers.parse import SPACE

__all__ = ["ArrowTarget", "CompressedTarget", "CsvTarget", "ParquetTarget"]

Entry = Record | Rejection
_ROWS = [
    {"a": "x" * 30, "n": [[1, 2], []], "m": {"role": "user", "content": "hello"}, "d": "same"},
    {"a": None, "n": None, "m": {"role": None, "content": "漢字"}, "d": "same"},
    {"a": "é😀", "n": [[]], "m": None, "d": "other"},
] * 5


class _Files(Target):
    """Reads an input as a file."""

    kind: ClassVar[str]
    most = 20_000

    def source(self, data: bytes, name: str, compression: str | None = None) -> InputFile:
        """Return the input as a file of a name."""
        path = self.folder / name
        path.unlink(missing_ok=True)  # a file that is mapped must not change
        path.write_bytes(data)
        return InputFile(str(path), self.kind, len(data), compression)

    def read(self, source: InputFile, shard_bytes: int = 1 << 40) -> list[Entry]:
        """Return what is in a file; what counts its records must agree."""
        reader = readers.get(source.kind)
        reader.columns(source)
        entries: list[Entry] = []
        for number, (start, end) in enumerate(reader.cut(source, shard_bytes)):
            shard = Shard(number, 0, source, start, end)
            own: list[Entry] = []
            for batch in reader.read(shard):
                own += [*batch.records, *batch.rejections]
            assert reader.count(shard, 1 << 40) == len(own), "count() differs"
            assert sorted(entry.row for entry in own) == list(range(len(own)))
            entries += sorted(own, key=lambda entry: entry.row)
        return entries


def _outcome(entries: list[Entry]) -> object:
    kinds = tuple(getattr(entry, "reason", "record") for entry in entries[:4])
    return kinds, len(entries).bit_length()


class CompressedTarget(_Files):
    """Lines in gzip and zstd: all of them, as other decompressors give them, or an error."""

    name = "compressed"
    kind = "jsonl"
    tokens = (
        gzip.compress(b"{}\n"),
        b"\x1f\x8b\x08\x00",
        b"\x28\xb5\x2f\xfd",
        b"\x00\x00\xff\xff",
    )
    most = 3000

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        lines = [b'{"a": 1}\n', b'{"a": "%s"}\n' % (b"x" * 300), b'{"a": 1}\n{"b": 2}\n' * 40]
        lines += [bytes(range(32, 127)) * 3]
        self._whole = [gzip.compress(line, level) for line in lines for level in (0, 9)]
        self._whole += [self._whole[0] + self._whole[3]]
        self._whole += [pa.compress(line, codec="zstd", asbytes=True) for line in lines]

    def seeds(self) -> list[bytes]:
        return self._whole

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        if rng.random() < 0.1:
            return data[: int(rng.random() * len(data))]
        return havoc(rng, data, other, self.tokens)

    def run(self, data: bytes) -> object:
        zstd = data.startswith(b"\x28\xb5\x2f\xfd")
        source = self.source(data, "in.jsonl.zst" if zstd else "in.jsonl.gz", "zstd" if zstd else "gzip")
        expected = None if zstd else _gunzipped(data)
        # Of a read that fails, pyarrow never gives the buffer back.
        jsonl.BATCH_BYTES = 4096  # type: ignore[misc]
        try:
            entries = self.read(source)
        except InputError:
            assert expected is None, "refused, though it is whole"
            raise
        finally:
            with contextlib.suppress(InputError):
                find_inputs([source.path])
        if zstd:
            cut = any(whole.startswith(data) and whole != data for whole in self._whole)
            assert not cut, "cut off, and nobody says so"
            return _outcome(entries)
        assert expected is not None, "damaged, and nobody says so"
        lines = expected.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        for entry in entries:
            entry.byte_offset = 0
        rows = sum(bool(line.strip(SPACE)) for line in lines)
        assert rows == len(entries)
        return _outcome(entries)


def _gunzipped(data: bytes) -> bytes | None:
    """Return what zlib makes of gzip members; None where they are not whole."""
    found = []
    while True:
        member = zlib.decompressobj(31)
        try:
            found.append(member.decompress(data, 1 << 24))
        except zlib.error:
            return None
        if not member.eof:
            return None
        data = member.unused_data
        if not data:
            return b"".join(found)


class CsvTarget(_Files):
    """CSV and TSV."""

    name = "csv"
    kind = "csv"
    tokens = (*(bytes([byte]) for byte in b'",\t\r\n a\\'), b'""', b"\r\n", b"\xef\xbb\xbf", b"\xff",
    b"\x00",
              "é漢".encode(), b'"a\nb"', b",,", b"a,b", b"\xc3", b"\xed\xa0\x80", b"\xe2\x80\xa8",
              )  # fmt: skip
    most = 600

    def seeds(self) -> list[bytes]:
        text = 'instruction,output\na,"b\nc"\n"é ""x""",\n\n1,2\n'
        return [
            b"," + text.encode(),
            b"\t" + text.replace(",", "\t").encode(),
            b",\xef\xbb\xbfa,b\r\n1,2\r\n",
        ]

    def run(self, data: bytes) -> object:
        name = "in.tsv" if data.startswith(b"\t") else "in.csv"
        source = self.source(data[1:], name)
        csv.BATCH_BYTES = 1 << 18  # type: ignore[misc]
        at_once = self.read(source)
        csv.BATCH_BYTES = 5  # type: ignore[misc]
        assert self.read(source) == at_once
        for entry in at_once:
            if isinstance(entry, Record):
                json.dumps(entry.value, ensure_ascii=False).encode("utf-8")
        return _outcome(at_once)


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    table = pa.Table.from_pylist(rows)
    table = table.set_column(3, "d", table.column("d").dictionary_encode())
    times = pa.array([number * 10**9 for number in range(len(rows))], pa.timestamp("us"))
    kind = pa.map_(pa.string(), pa.int32())
    mapped = pa.array([[("k", 1), ("l", None)] if number % 2 else [] for number in range(len(rows))], kind)
    return table.append_column("t", times).append_column("map", mapped)


class ParquetTarget(_Files):
    """Parquet: as many rows as it says that it has, or an error."""

    name = "parquet"
    kind = "parquet"
    tokens = (b"PAR1", b"\x15\x00", b"\x15\x02", b"\x19\x1c", b"\x26\x00", b"\xff" * 5,
    b"\xff\xff\xff\xff\x0f",
              b"\x80\x80\x80\x80\x10", b"\x00" * 4, b"\x18\x00",)  # fmt: skip

    def seeds(self) -> list[bytes]:
        table, found = _table(_ROWS), []
        for number, (codec, checksum, dictionary) in enumerate(
            [("none", True, True), ("zstd", True, False), ("snappy", False, True), ("none", False, False)]
        ):
            out = io.BytesIO()
            narrow = table.select(["a", "m"]) if number == 3 else table
            pq.write_table(
                narrow, out, compression=codec, write_page_checksum=checksum, use_dictionary=dictionary,
                row_group_size=4 + 20 * (number % 2), data_page_version="2.0" if number % 2 else "1.0",
            )  # fmt: skip
            found.append(out.getvalue())
        return found

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        if len(data) < 20 or rng.random() < 0.3:
            return havoc(rng, data, other, self.tokens)
        # What stands between the pages and the end says how to read them.
        size = int.from_bytes(data[-8:-4], "little")
        start = max(4, len(data) - 8 - size) if rng.random() < 0.7 else 4
        footer = havoc(rng, data[start:-8], other[start:-8], self.tokens)
        kept = len(footer) if rng.random() < 0.9 and start > 4 else size
        return data[:start] + footer + kept.to_bytes(4, "little") + b"PAR1"

    def run(self, data: bytes) -> object:
        return _outcome(self.read(self.source(data, "in.parquet"), 1 + len(data) % 700))


class ArrowTarget(_Files):
    """Arrow files and streams."""

    name = "arrow"
    kind = "arrow"
    tokens = (b"ARROW1", b"\xff\xff\xff\xff", b"\x00" * 8, b"\x04\x00\x00\x00", b"\x10\x00\x00\x00",
              b"\xff\xff\xff\x7f", b"\xfc\xff\xff\xff",)  # fmt: skip

    def seeds(self) -> list[bytes]:
        table, found = _table(_ROWS), []
        for opened in (pa.ipc.new_file, pa.ipc.new_stream):
            for codec in (None, "zstd"):
                out = io.BytesIO()
                with opened(out, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
                    writer.write_table(table, max_chunksize=6)
                found.append(out.getvalue())
        return found

    def run(self, data: bytes) -> object:
        return _outcome(self.read(self.source(data, "in.arrow"), 1 + len(data) % 700))
