"""The datasets that are packed anew: which they are, whether they go together, and their sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mtsft_preproc.config import PreprocessConfig
from mtsft_preproc.errors import DatasetError
from mtsft_preproc.hashing import file_sha256
from mtsft_preproc.indexed import bin_path
from mtsft_preproc.join.agreement import check_agreement
from mtsft_preproc.join.inputs import JoinInput, find_inputs
from mtsft_preproc.layout import OutputPaths
from mtsft_preproc.ledger import sample_schema

__all__ = ["IDS", "LABELS", "Stretch", "check_tokens", "kept_columns", "open_inputs", "stretches"]

IDS, LABELS = "_packed_input_ids_document", "_packed_labels_document"
_NEEDED = ("item", "offset", "position", *sample_schema().names)
#: Settings of samples as they stood, which need not be equal: they are packed anew.
_PACKING = ("seq_length", "pad_to_multiple_of")


def open_inputs(config: PreprocessConfig) -> list[JoinInput]:
    """Open the datasets.

    Raises:
        SettingsError: A prefix is named twice, or is the output's.
        DatasetError: They are damaged, no samples to fine-tune on, or don't go together.
    """
    inputs = find_inputs(config.input, config.prefix)
    for own in inputs:
        if own.manifest is None:
            raise DatasetError(
                f"{own.name}: no manifest beside it; expected a dataset of this program, whose sidecar "
                "says where its samples lie"
            )
        if "splits" in own.manifest:
            sides = ", ".join(f"{own.name}_{side}" for side in own.manifest["splits"])
            raise DatasetError(f"{own.name}: was split; expected one of {sides}")
        if own.manifest["objective"] != "sft":
            raise DatasetError(
                f"{own.name}: holds {', '.join(own.manifest['fields'])} ({own.manifest['objective']}); "
                "expected samples to fine-tune on"
            )
        if not OutputPaths(own.prefix).sources.exists():
            raise DatasetError(f"{OutputPaths(own.prefix).sources}: no such file")
    check_agreement([_as_samples(own) for own in inputs])
    schemas = [_schema_of(own) for own in inputs]
    for own, schema in zip(inputs, schemas, strict=True):
        if missing := [name for name in _NEEDED if name not in schema.names]:
            raise DatasetError(
                f"{OutputPaths(own.prefix).sources}: no column {', '.join(missing)}; made by an older "
                "version?"
            )
        if not schema.equals(schemas[0]):
            raise DatasetError(
                f"{inputs[0].name} and {own.name}: sidecars with other columns: "
                f"{', '.join(schemas[0].names)} and {', '.join(schema.names)}; expected equal ones"
            )
    return inputs


def _schema_of(own: JoinInput) -> pa.Schema:
    path = OutputPaths(own.prefix).sources
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not a readable parquet file: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _as_samples(own: JoinInput) -> JoinInput:
    """Return an input as if it were not packed."""
    assert own.manifest is not None
    settings = {name: value for name, value in own.manifest["settings"].items() if name not in _PACKING}
    manifest = {name: value for name, value in own.manifest.items() if name != "packing"}
    return replace(own, manifest={**manifest, "settings": settings})


def check_tokens(inputs: Sequence[JoinInput], workers: int) -> None:
    """Read all tokens that are about to be copied.

    Raises:
        DatasetError: They are not those that the manifest tells of.
    """
    files = [(own, bin_path(own.datasets[name].prefix)) for own in inputs for name in (IDS, LABELS)]
    files += [(own, OutputPaths(own.prefix).sources) for own in inputs]
    with ThreadPoolExecutor(workers) as threads:
        digests = threads.map(file_sha256, [path for _, path in files])
        for (own, path), digest in zip(files, digests, strict=True):
            if digest != own.sha256(path):
                raise DatasetError(f"{path}: sha256 {digest[:12]}, but the manifest tells of another")


@dataclass
class Stretch:
    """Samples that follow each other in the sidecar of an input: of one source and one file.

    Attributes:
        dataset: Number of the input.
        owner: Number of their source: where there is one input, its sources count; else the inputs do.
        source: Name of that source.
        file: Number of the file of data that they came from.
        path: Its path.
        table: Their rows of the sidecar. All samples of a record are in one stretch.
    """

    dataset: int
    owner: int
    source: str
    file: int
    path: str
    table: pa.Table


def stretches(inputs: Sequence[JoinInput]) -> Iterator[Stretch]:
    """Yield all samples, a row group of a sidecar at a time.

    Raises:
        DatasetError: A sidecar is damaged.
    """
    owner = file = -1
    before: tuple[str, str] | None = None
    for number, own in enumerate(inputs):
        try:
            for part in _parts(own):
                path = part["file"][0].as_py()
                source = part["source_name"][0].as_py() if len(inputs) == 1 else own.name
                # A source that comes back is another one: its samples don't follow those of the first.
                new = owner + (before is None or source != before[0])
                owner = new if len(inputs) == 1 else number
                file += (source, path) != before
                before = (source, path)
                yield Stretch(number, owner, source, file, path, part)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"{OutputPaths(own.prefix).sources}: {_first_line(error)}") from None


def _parts(own: JoinInput) -> Iterator[pa.Table]:
    """Yield the rows of a sidecar, those of one source and file at a time."""
    file = pq.ParquetFile(OutputPaths(own.prefix).sources, page_checksum_verification=True)
    seams = _seams(own)
    held: pa.Table | None = None
    first = 0
    for group in range(file.num_row_groups):
        table = file.read_row_group(group)
        if held is not None:
            table = pa.concat_tables([held, table]).combine_chunks()
        inside = [seam - first for seam in seams if first <= seam < first + len(table)]
        # The record at the end may go on in the next row group.
        last = max(_last_record(table), *inside, 0)
        end = len(table) if group == file.num_row_groups - 1 else last
        held = table.slice(end)
        first += end
        if not end:
            continue
        borders = sorted({border for border in (*_borders(table), *inside) if border < end})
        for start, stop in zip(borders, [*borders[1:], end], strict=True):
            yield table.slice(start, stop - start)


def _seams(own: JoinInput) -> list[int]:
    """Return the rows at which the datasets begin that a dataset was joined from.

    A record may end one of them and begin the next; that is two records.
    """
    assert own.manifest is not None
    try:
        sizes = [int(part["samples"]) for part in own.manifest.get("merged", ())]
    except (KeyError, TypeError, ValueError, OverflowError):
        path = OutputPaths(own.prefix).manifest
        raise DatasetError(f"{path}: not a manifest: expected 'samples' in each of 'merged'") from None
    ends: list[int] = np.cumsum(sizes).astype(int).tolist()
    return ends[:-1]


def _borders(table: pa.Table) -> list[int]:
    """Return the rows at which a source or a file begins."""
    changes = np.zeros(len(table), np.bool_)
    for name in ("source_name", "file"):
        changes |= np.diff(_codes(table, name), prepend=-1) != 0
    borders: list[int] = np.flatnonzero(changes).tolist()
    return borders


def _codes(table: pa.Table, name: str) -> npt.NDArray[np.int32]:
    codes: npt.NDArray[np.int32] = (
        table.column(name).combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    )
    return codes


def _last_record(table: pa.Table) -> int:
    """Return the row at which the last record begins."""
    rows = table.column("row").to_numpy()
    changes = np.diff(rows) != 0
    for name in ("source_name", "file"):
        changes |= np.diff(_codes(table, name)) != 0
    places = np.flatnonzero(changes)
    return int(places[-1]) + 1 if len(places) else 0


def kept_columns(inputs: Sequence[JoinInput]) -> list[str]:
    """Return the columns of the data that the sidecars took over."""
    own = pq.read_schema(OutputPaths(inputs[0].prefix).sources).names
    return [name for name in own if name not in _NEEDED]
