"""``mtsft merge``: what it prints, and that an error is one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtsft_preproc.cli import main
from mtsft_preproc.indexed import IndexedDataset, IndexedWriter


def write(prefix: Path, *items: list[int]) -> str:
    with IndexedWriter(f"{prefix}_text_document") as writer:
        flat = np.array([token for item in items for token in item], np.int32)
        writer.write(flat, np.array([len(item) for item in items], np.int32))
    return str(prefix)


def test_datasets_are_joined_and_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = [write(tmp_path / "a", [1, 2], [3]), write(tmp_path / "b", [4])]
    command = ["merge", *inputs, "--output-prefix", str(tmp_path / "new" / "out")]
    assert main(command) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in printed[:3]] == [["merged", "2"], ["items", "3"], ["tokens", "4"]]
    assert printed[-1].split() == ["output", f"{tmp_path}/new/out_text_document.{{bin,idx}}"]
    found = [item.tolist() for item in IndexedDataset(tmp_path / "new" / "out_text_document")]
    assert found == [[1, 2], [3], [4]]
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --output-prefix: ")
    assert main([*command, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["a"], "at least two"), (["a", "a"], "named twice"), (["a", "none"], "none: no dataset there")],
)
def test_an_error_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    write(tmp_path / "a", [1])
    prefixes = [str(tmp_path / name) for name in arguments]
    assert main(["merge", *prefixes, "--output-prefix", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert named in line
    assert not list(tmp_path.glob("out*"))
