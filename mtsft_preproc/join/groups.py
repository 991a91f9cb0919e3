"""The merge of MindSpeed-LLM: all pairs in a folder whose names hold a key.

Source of the behaviour: ``preprocess_data.py --merge-group-keys`` of MindSpeed-LLM: for each key, the pairs
whose name holds it are joined in the order of their names into ``OUTPUT_KEY``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from mtsft_preproc.config import check_output_prefix
from mtsft_preproc.errors import DatasetError, SettingsError
from mtsft_preproc.join.inputs import JoinInput, open_input, same_place
from mtsft_preproc.join.run import JoinResult, join_inputs

__all__ = ["merge_group_keys"]

logger = logging.getLogger(__name__)

_SHOWN = 8


def merge_group_keys(
    folder: str, keys: Sequence[str], output_prefix: str, overwrite: bool = False
) -> JoinResult:
    """Join, for each key, the pairs in a folder whose names hold the key, into ``OUTPUT_PREFIX_KEY``.

    They are joined in the sorted order of the names that the first key finds, for all keys, so that items
    stay side by side. The output's own files are no inputs. Where the keys take whole outputs of this
    package, these are compared and joined as :func:`~mtsft_preproc.join.join` does it, manifest and all;
    where they take only some of their datasets, these are compared, and no manifest is written.

    Raises:
        MtsftError: A key finds nothing, a file lacks its other half, the keys find different inputs, they
            don't go together, or the output can't be written. Nothing appears.
    """
    output = Path(output_prefix)
    check_output_prefix(output_prefix)
    if not Path(folder).is_dir():
        raise SettingsError(f"--input: {folder} is no folder; expected the one with the datasets to join")
    keys = list(dict.fromkeys(keys))
    if not all(keys):
        raise SettingsError("--merge-group-keys: '' is no key; expected parts of names: text_document")
    return join_inputs(lambda: _find(Path(folder), keys, output), output, overwrite)


def _find(folder: Path, keys: Sequence[str], output: Path) -> list[JoinInput]:
    own = set()
    if same_place(output).parent == folder.resolve():
        own = {f"{output.name}_{key}" for key in keys}
    groups = {key: _stems(folder, key, own) for key in keys}
    first = groups[keys[0]]
    for key, stems in groups.items():
        if apart := sorted(stems.keys() ^ first.keys()):
            before, after = apart[0]
            has, lacks = (key, keys[0]) if apart[0] in stems else (keys[0], key)
            raise DatasetError(
                f"{folder / (before + has + after)}: there is no {before + lacks + after} beside it; "
                "expected the same inputs for all of --merge-group-keys"
            )
    found = []
    for place in first:
        prefix = folder / _prefix(place, keys[0])
        logger.info("merging %s", prefix)
        pairs = {f"_{key}": folder / stems[place] for key, stems in groups.items()}
        found.append(open_input(prefix, pairs))
    return found


def _stems(folder: Path, key: str, own: set[str]) -> dict[tuple[str, str], str]:
    """Return the names of the pairs that hold a key, sorted, by what stands before and behind it."""
    suffixes: dict[str, set[str]] = {}
    for path in folder.iterdir():
        if path.suffix in (".bin", ".idx") and path.is_file():
            suffixes.setdefault(path.stem, set()).add(path.suffix)
    matches = sorted(stem for stem in suffixes if key in stem)
    for stem in matches:
        if stem in own:
            logger.warning("%s belongs to --output-prefix and is no input", folder / stem)
        elif len(suffixes[stem]) == 1:
            (there,) = suffixes[stem]
            other = ".bin" if there == ".idx" else ".idx"
            raise DatasetError(f"{folder / stem}{there}: there is no {stem}{other} beside it")
    found = [stem for stem in matches if stem not in own]
    if not found:
        known = sorted({_key(stem) for stem in suffixes if stem not in own})
        raise SettingsError(
            f"--merge-group-keys: no dataset in {folder} has {key!r} in its name; "
            f"available: {', '.join(known[:_SHOWN]) or 'none'}"
        )
    return {(stem.partition(key)[0], stem.partition(key)[2]): stem for stem in found}


def _key(stem: str) -> str:
    """Return the part of a name that is most likely a key."""
    at = stem.find("packed_")
    return stem[at:] if at >= 0 else "_".join(stem.split("_")[-2:])


def _prefix(place: tuple[str, str], key: str) -> str:
    """Return the output prefix of a pair, or a name for it where it has no such form."""
    before, after = place
    if not after and len(before) > 1 and before.endswith("_"):
        return before[:-1]
    return before + key + after
