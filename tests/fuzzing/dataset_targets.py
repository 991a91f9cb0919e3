"""Finished datasets, and what a run keeps of its work: everything in them may say anything."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import struct
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fuzzing.engine import Target, one_line
from fuzzing.mutation import JSON_TOKENS, havoc, mutated_json
from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.dialogue import Rejection
from mtsft_preproc.encoding import DatasetSpec, EncodedBatch
from mtsft_preproc.errors import DatasetError, MtsftError
from mtsft_preproc.indexed import SFT_FIELDS, IndexedDataset, IndexedWriter, dataset_prefix, open_published
from mtsft_preproc.indexed.layout import DTYPE_CODES, MAGIC
from mtsft_preproc.join.agreement import check_agreement
from mtsft_preproc.join.inputs import find_inputs
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.ledger import sample_schema
from mtsft_preproc.parts import PartReader, PartWriter
from mtsft_preproc.publish import finish_commit
from mtsft_preproc.repack.inputs import open_inputs, stretches
from mtsft_preproc.work import open_work

__all__ = ["CommitTarget", "IdxTarget", "ManifestTarget", "PartTarget", "PlanTarget", "SourcesTarget"]

_SIZES = [3, 5, 2]


class IdxTarget(Target):
    """A ``.bin``/``.idx`` pair: what opens lies inside of its file, item by item.

    The first two bytes of an input are the length of the ``.idx`` file, the others both files.
    """

    name = "idx"
    tokens = (MAGIC, b"\x01" + b"\x00" * 7, b"\xff" * 8, b"\x00" * 8, b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
              *(bytes([code]) for code in range(10)),)  # fmt: skip

    def seeds(self) -> list[bytes]:
        found = []
        for code in (1, 4, 5, 8):
            for documents in (None, [0, 2, 3]):
                dtype = DTYPE_CODES[code]
                data = np.arange(sum(_SIZES)).astype(dtype).tobytes()
                found.append(_pair(code, _SIZES, documents or [0, 1, 2, 3], data))
        return [*found, _pair(4, [], [0], b"")]

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        if rng.random() < 0.3:
            return havoc(rng, data, other, self.tokens)
        # The sizes are right, and what they speak of is not.
        count = int(rng.random() * 5)
        sizes = [
            rng.choice([0, 1, 3, -1, 2**31 - 1, -(2**31)]) if rng.random() < 0.4 else 2
            for _ in range(count)
        ]
        documents = sorted(int(rng.random() * (count + 1)) for _ in range(int(rng.random() * 4)))
        documents = [0, *documents, count] if rng.random() < 0.8 else documents
        code = int(rng.random() * 10)
        width = DTYPE_CODES[code].itemsize if code in DTYPE_CODES else 4
        length = sum(sizes) * width if rng.random() < 0.8 else int(rng.random() * 40)
        made = bytearray(_pair(code, sizes, documents, bytes(max(0, min(length, 200)))))
        if rng.random() < 0.5:
            at = int(rng.random() * (len(made) - 8))
            value = rng.choice([0, 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**64 - 1, 2**61, 8, 16])
            made[at : at + 8] = struct.pack("<Q", value)
        return bytes(made)

    def run(self, data: bytes) -> object:
        if len(data) < 2:
            return None
        length = int.from_bytes(data[:2], "little")
        index, tokens = data[2 : 2 + length], data[2 + length :]
        (self.folder / "a.idx").write_bytes(index)
        (self.folder / "a.bin").write_bytes(tokens)
        opened = IndexedDataset(self.folder / "a")
        width, start = opened.dtype.itemsize, 0
        assert len(opened.lengths) == len(opened.offsets) == len(opened)
        for number, item in enumerate(opened):
            assert len(item) == int(opened.lengths[number])
            assert int(opened.offsets[number]) == start
            assert item.tobytes() == tokens[start : start + len(item) * width]
            start += len(item) * width
        assert start == len(tokens), "bytes that belong to no item"
        borders = opened.document_index.tolist()
        assert borders == sorted(borders)
        assert (borders[0], borders[-1]) == (0, len(opened))
        return str(opened.dtype), len(opened), len(borders)


def _pair(code: int, sizes: list[int], documents: list[int], data: bytes) -> bytes:
    width = DTYPE_CODES[code].itemsize if code in DTYPE_CODES else 4
    offsets = [sum(sizes[:number]) * width for number in range(len(sizes))]
    index = MAGIC + struct.pack("<QBQQ", 1, code, len(sizes), len(documents))
    index += struct.pack(f"<{len(sizes)}i", *sizes)
    index += struct.pack(f"<{len(sizes)}q", *offsets) + struct.pack(f"<{len(documents)}q", *documents)
    return len(index).to_bytes(2, "little") + index + data


def _sidecar(checksums: bool = True) -> bytes:
    count = len(_SIZES)
    columns: dict[str, Any] = {
        "item": list(range(count)), "offset": [0] * count, "length": _SIZES, "trained": [1] * count,
        "position": list(range(count)), "source_name": ["s"] * count, "file": ["a.jsonl"] * count,
        "row": list(range(count)), "turn": [None] * count, "digest": [bytes(16)] * count,
    }  # fmt: skip
    schema = sample_schema()
    place = {"item": pa.int64(), "offset": pa.int32(), "position": pa.int64()}
    fields = [
        schema.field(name) if name in schema.names else pa.field(name, place[name], False)
        for name in columns
    ]
    out = io.BytesIO()
    pq.write_table(pa.table(columns, pa.schema(fields)), out, write_page_checksum=checksums)
    return out.getvalue()


class _Output(Target):
    """A finished output, of which a target changes one file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.prefix = folder / "out" / "data"
        self.prefix.parent.mkdir()
        self.paths = OutputPaths(self.prefix)
        total = sum(_SIZES)
        for field in SFT_FIELDS:
            with IndexedWriter(dataset_prefix(self.prefix, field), np.dtype("<i4")) as writer:
                writer.write(np.arange(total, dtype=np.int32), np.asarray(_SIZES, np.int32))
        self.paths.rejected.write_bytes(b"")
        self.paths.sources.write_bytes(_sidecar())
        files = {
            path.name: {
                "bytes": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for path in sorted(self.prefix.parent.iterdir())
        }
        config = PreprocessConfig(("a.jsonl",), str(self.prefix), "tok", "alpaca", prompt_type="chatml")
        self.manifest: dict[str, Any] = {
            "format": 1, "version": "0", "fingerprint": "f",
            "settings": json.loads(json.dumps(config.shaping())),
            "inputs": [{"path": "a.jsonl", "bytes": 1, "sha256": "0"}],
            "tokenizer": {"path": "tok", "sha256": "0", "adjustment": {"eos": None, "special": []},
            "use_fast": True},
            "prompt_type": {"name": "chatml", "style": "a"}, "objective": "sft", "fields": list(SFT_FIELDS),
            "pad_id": 0, "ignore_index": -100, "items": len(_SIZES), "samples": len(_SIZES),
            "tokens": total,
            "trained_tokens": 3, "length_quantiles": {"0.0": 1}, "records": {"read": 3, "kept": 3,
            "rejected": 0},
            "sources": [{"name": "s", "read": 3}], "files": files,
        }  # fmt: skip
        self.config = PreprocessConfig((str(self.prefix),), str(folder / "new"), "tok", "alpaca")

    def write(self, manifest: Any) -> None:
        self.paths.manifest.write_text(json.dumps(manifest), "utf-8")

    def open(self) -> list[object]:
        """Open the output by all that opens one; return what each says."""
        said: list[object] = []
        for how in (self._publish, self._join, self._repack):
            try:
                said.append(how())
            except MtsftError as error:
                said.append(one_line(error)[:60])
        return said

    def _publish(self) -> object:
        opened = open_published(self.prefix)
        assert opened.fields.keys() == set(SFT_FIELDS)
        return len(opened.fields["labels"])

    def _join(self) -> object:
        found = find_inputs([str(self.prefix)], self.folder / "new")
        check_agreement([*found, *found])
        for path in found[0].files():
            assert path.parent == self.prefix.parent, "a file outside of the folder"
        return found[0].whole

    def _repack(self) -> object:
        return sum(len(stretch.table) for stretch in stretches(open_inputs(self.config)))


class ManifestTarget(_Output):
    """``manifest.json``: what opens an output reads the files beside it, or refuses it."""

    name = "manifest"
    tokens = JSON_TOKENS
    most = 20_000
    _VALUES = ("data.sources.parquet", "../out/data_packed_labels_document.idx", "a.idx", "a.bin", ".",
    "..", "train",
               {"side": "train", "of": "data"}, {"of": 3}, {"of": "../x"}, {"train": 3}, {"bytes": 0,
               "sha256": "x"},
               {"seq_length": 4, "multiple": 1}, ["train"], "sft", "text", "a\x00b", 10**30,)  # fmt: skip

    def seeds(self) -> list[bytes]:
        side = self.manifest | {"split": {"side": "train", "of": "run", "shares": [1, 0], "seed": 1}}
        packed = self.manifest | {"packing": {"seq_length": 5, "multiple": 1, "neat": False, "fill": 1.0}}
        merged = self.manifest | {"merged": [{"prefix": "a", "samples": 1}, {"prefix": "b", "samples": 2}]}
        split = self.manifest | {"splits": {"train": {"items": 3}}}
        return [json.dumps(own).encode() for own in (self.manifest, side, packed, merged, split)]

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        if rng.random() < 0.1:
            return havoc(rng, data, other, self.tokens)
        return mutated_json(rng, data, other, self._VALUES)

    def run(self, data: bytes) -> object:
        self.paths.manifest.write_bytes(data)
        return tuple(str(said)[-40:] for said in self.open())


class SourcesTarget(_Output):
    """``sources.parquet``, damaged, of the size that the manifest tells."""

    name = "sources"
    tokens = (
        b"PAR1",
        b"\x15\x00",
        b"\x15\x02",
        b"\x19\x1c",
        b"\x26\x00",
        b"\xff" * 5,
        b"item",
        b"file",
        b"digest",
    )
    most = 12_000

    def seeds(self) -> list[bytes]:
        return [_sidecar(), _sidecar(checksums=False)]

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        if len(data) < 20 or rng.random() < 0.4:
            return havoc(rng, data, other, self.tokens)
        size = int.from_bytes(data[-8:-4], "little")
        start = max(4, len(data) - 8 - size)
        footer = havoc(rng, data[start:-8], other[start:-8], self.tokens)
        return data[:start] + footer + len(footer).to_bytes(4, "little") + b"PAR1"

    def run(self, data: bytes) -> object:
        self.paths.sources.write_bytes(data)
        files = {**self.manifest["files"], self.paths.sources.name: {"bytes": len(data), "sha256": "x"}}
        self.write(self.manifest | {"files": files})
        try:
            return self._repack()
        except DatasetError as error:
            return one_line(error)[-60:]


class CommitTarget(Target):
    """The record of a publication: whatever it says, nothing outside of the output's names is touched."""

    name = "commit"
    tokens = JSON_TOKENS
    _VALUES = ("../outside", "../outside/kept", "/etc/hostname", "data.manifest.json", "other.bin", "..",
    ".", "",
               "data.mtsft-work", "data.mtsft-work/commit.json", "sub/kept", "data.sources.parquet",
               "data\x00",
               "data_packed_labels_document.bin", "../../outside/kept", "a" * 300,)  # fmt: skip
    _STAGED = ("data_packed_labels_document.bin", "data.manifest.json")

    def seeds(self) -> list[bytes]:
        names = list(self._STAGED)
        return [json.dumps({"files": names, "left_over": own}).encode() for own in ([], ["data.old.bin"])]

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        if rng.random() < 0.2:
            return havoc(rng, data, other, self.tokens)
        return mutated_json(rng, data, other, self._VALUES)

    def run(self, data: bytes) -> object:
        shutil.rmtree(self.folder)
        folder, outside = self.folder / "out", self.folder / "outside"
        paths = OutputPaths(folder / "data")
        kept = [folder / "other.bin", folder / "sub" / "kept", outside / "kept"]
        ours = [folder / "data.old.bin", *(paths.staging / name for name in self._STAGED)]
        for path in (*kept, *ours):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(path.name.encode())
        paths.commit.write_bytes(data)
        try:
            said: object = finish_commit(paths)
        except MtsftError as error:
            said = str(error)[-40:]
        for path in kept:
            assert path.exists(), f"{path.name} is gone"
            assert path.read_bytes() == path.name.encode(), f"{path.name} was touched"
        assert sorted(os.listdir(outside)) == ["kept"]
        assert sorted(os.listdir(self.folder)) == ["out", "outside"]
        return said


_IDENTITY = {"settings": {"seed": 1, "pack": False}, "inputs": [{"path": "a", "sha256": "x"}]}


class PlanTarget(Target):
    """``plan.json``: taken up, thrown away or refused."""

    name = "plan"
    tokens = JSON_TOKENS

    def seeds(self) -> list[bytes]:
        changed = {"settings": {"seed": 2}, "inputs": []}
        plans = [("f", _IDENTITY), ("f", changed), ("g", changed)]
        return [json.dumps({"fingerprint": name, "identity": own}).encode() for name, own in plans]

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        if rng.random() < 0.2:
            return havoc(rng, data, other, self.tokens)
        return mutated_json(rng, data, other, ["f", "g"])

    def run(self, data: bytes) -> object:
        paths = OutputPaths(self.folder / "data")
        paths.work.mkdir(exist_ok=True)
        paths.plan.write_bytes(data)
        open_work(paths, "f", _IDENTITY, restart=False)
        return True


_DATASETS = (
    DatasetSpec("ids", "sample"),
    DatasetSpec("labels", "sample"),
    DatasetSpec("mask", "sample", stored=False),
)


class PartTarget(Target):
    """A part file, also one whose footer is signed and nonsense."""

    name = "part"
    tokens = (
        b"MTSFTPART4\x00\x00",
        b"\xff" * 8,
        b"\x00" * 8,
        *JSON_TOKENS[:12],
    )
    most = 20_000

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._seeds = [self._write(count) for count in (0, 1, 3)]
        self._footers = {_parted(own)[1]: own for own in self._seeds}

    def seeds(self) -> list[bytes]:
        return self._seeds

    def _write(self, batches: int) -> bytes:
        path = self.folder / "a.part"
        with PartWriter(path, {"fingerprint": "f", "shard": [0, 1]}, _DATASETS) as writer:
            for number in range(batches):
                tokens = np.arange(6, dtype=np.int32) + number
                refused = Rejection(2, "not-json", "", "JSON", "x", byte_offset=9)
                batch = EncodedBatch(
                    {"ids": tokens, "labels": tokens}, {"sample": np.asarray([2, 4], np.int32)},
                    np.asarray([1, 2], np.int32), np.arange(2), np.full(2, -1, np.int32),
                    np.arange(4, dtype=np.uint64).reshape(2, 2), [["k"], [None]], [refused],
                    Counter({"odd": 1}),
                )  # fmt: skip
                writer.add(batch, 3)
        return path.read_bytes()

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        if len(data) < 60 or rng.random() < 0.4:
            return havoc(rng, data, other, self.tokens)
        body, footer = _parted(data)
        changed = mutated_json(
            rng, footer, _parted(other)[1], [[12, 8], [0, 2**40], [-1, 4], "ids", "blocks:ids"]
        )
        return (
            body
            + changed
            + hashlib.sha256(changed).digest()
            + len(changed).to_bytes(8, "little")
            + data[-12:]
        )

    def run(self, data: bytes) -> object:
        path = self.folder / "a.part"
        path.write_bytes(data)
        part = PartReader(path)
        part.check()
        columns, rejections = part.tail()
        for stream in part.streams:
            part.places(
                stream, columns["lengths:sample"] if "sample" in part.groups else np.zeros(0, np.int32)
            )
        part.columns()
        _, footer = _parted(data)
        original = self._footers.get(footer)
        if original is not None:
            assert data == original, "a change that nobody noticed"
        return len(rejections), tuple(part.streams), tuple(part.groups)


def _parted(data: bytes) -> tuple[bytes, bytes]:
    """Return what stands before the footer of a part, and the footer."""
    end = len(data) - 52
    start = max(0, end - int.from_bytes(data[-20:-12], "little"))
    return data[:start], data[start:end]
