"""A model learns from what the package writes, through ``examples/train_tiny_llama.py``."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from types import ModuleType

import pytest
import torch

from mtsft_preproc import PreprocessConfig, preprocess

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    path = EXAMPLES / "train_tiny_llama.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset of 4 dialogues, which a tiny model can learn by heart in 30 steps."""
    config = PreprocessConfig(
        input=(str(EXAMPLES / "data" / "alpaca_history.json"),),
        output_prefix=str(tmp_path_factory.mktemp("training") / "data"),
        tokenizer=str(EXAMPLES / "tokenizer"),
        handler_name="alpaca",
        prompt_type="chatml",
        map_keys='{"history":"history","system":"system"}',
        max_samples=4,
    )
    preprocess(config)
    return config.output_prefix


@pytest.fixture(autouse=True)
def _quiet_torch() -> Iterator[None]:
    """One thread, since two that wait for each other crawl on a shared machine; the seed stays inside."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        yield
    torch.set_num_threads(threads)


def test_the_loss_falls(example: ModuleType, prefix: str) -> None:
    losses = example.train(prefix, steps=30, batch_size=4, seed=7, lr=5e-3)
    assert len(losses) == 30
    # An untrained model knows nothing: every one of the tokenizer's 4005 tokens is as likely.
    assert losses[0] == pytest.approx(math.log(4005), abs=0.2)
    assert fmean(losses[-5:]) < 0.6 * fmean(losses[:5])


def test_a_seed_gives_one_course(example: ModuleType, prefix: str) -> None:
    first, again, other = (example.train(prefix, steps=3, batch_size=2, seed=s) for s in (7, 7, 8))
    assert first == pytest.approx(again, rel=1e-5)
    assert first != pytest.approx(other, rel=1e-5)


def test_command_prints_every_fifth_loss_and_both_means(
    example: ModuleType, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert example.main(["--prefix", prefix, "--steps", "10", "--batch-size", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["step", "5"], ["step", "10"]]
    assert lines[2].startswith("mean loss of the first 5 steps ")
    assert len(lines) == 3


@pytest.mark.parametrize("damage", ["nothing there", "no manifest", "no samples"])
def test_what_is_no_dataset_is_one_line_and_an_exit_code(
    example: ModuleType, prefix: str, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if damage != "nothing there":
        for file in Path(prefix).parent.glob("data*"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    manifest = tmp_path / "data.manifest.json"
    if damage == "no manifest":
        manifest.unlink()
    if damage == "no samples":
        # The header of an index of int32 with 0 sequences and 1 document border, which is 0.
        empty = b"MMIDIDX\0\0" + bytes([1, *[0] * 7, 4, *[0] * 8, 1, *[0] * 7]) + bytes(8)
        for file in tmp_path.glob("*.idx"):
            file.write_bytes(empty)
            file.with_suffix(".bin").write_bytes(b"")
        manifest.write_text(json.dumps({**json.loads(manifest.read_text("utf-8")), "files": {}}), "utf-8")
    assert example.main(["--prefix", str(tmp_path / "data")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith(f"error: {tmp_path / 'data'}")
    expected = {"nothing there": "no such file", "no manifest": "no manifest", "no samples": "no samples"}
    assert expected[damage] in printed.err
