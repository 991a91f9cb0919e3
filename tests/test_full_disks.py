"""Errors of the operating system, and signals: one line, exit code, and the work is kept."""

from __future__ import annotations

import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from arranged import dialogues, make, published, write

from mtsft_preproc.cli import preprocess_main
from mtsft_preproc.errors import OutputError
from mtsft_preproc.parts import ContainerWriter

ROOT = Path(__file__).parents[1]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", dialogues(30))


@pytest.fixture
def calm(source: Path, tmp_path: Path) -> dict[str, bytes]:
    return published(make(source, tmp_path / "calm" / "data", shard_bytes=1000))


# Errors of the operating system.


def test_a_part_that_finds_no_room_leaves_nothing(tmp_path: Path) -> None:
    """Also where the last bytes are refused when the file is closed."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = ContainerWriter(tmp_path / "x.part", {}, [])
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: .*x\.part'"), writer:
            writer.section("a", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


COMMAND = [
    "--output-prefix", "out/data", "--tokenizer-name-or-path", str(ROOT / "examples" / "tokenizer"),
    "--handler-name", "alpaca", "--prompt-type", "chatml", "--map-keys", '{"history": "history"}',
    "--max-rejected", "1.0", "--shard-bytes", "20000",
]  # fmt: skip


def command(source: Path, *flags: str) -> list[str]:
    return [sys.executable, str(ROOT / "preprocess_data.py"), "--input", str(source), *COMMAND, *flags]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    return write(tmp_path / "many.jsonl", dialogues(1500))


PACKED = ["--pack", "--seq-length", "256", "--shuffle"]


#: Bytes that a file may have, and what needs more.
@pytest.mark.parametrize(
    ("limit", "flags", "file"),
    [
        (60_000, [], "/tokenizer.json"),
        (120_000, ["--shard-bytes", "200000"], r"data\.mtsft-work/parts/\d+\.part"),
        (400_000, [], r"data\.mtsft-work/staging/data_packed_\w+\.bin"),
        (400_000, PACKED, r"data\.mtsft-work/gathered/all/\d+\.items"),
    ],
)
def test_a_limit_on_files_is_one_line_and_the_work_is_kept(
    many: Path, tmp_path: Path, limit: int, flags: list[str], file: str
) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    line = command(many, "--workers", "2", *flags)
    # Python itself would leave cut off bytecode behind.
    given = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(line, cwd=tmp_path, env=given, preexec_fn=limited, capture_output=True, text=True)
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    errors = [own for own in run.stderr.splitlines() if own.startswith("error: ")]
    assert len(errors) == 1
    assert re.search(f"File too large: .*{file}", errors[0])
    assert not (tmp_path / "out" / "data.manifest.json").exists()
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "out").glob("*.mtsft-*"))


IN_NAMESPACE = """
set -eu
mount -t tmpfs -o size={size} none out
{command} && echo "rc 0" || echo "rc $?"
mount -o remount,size=100m out
{command} && echo "again 0" || echo "again $?"
mount -o remount,ro out
{command} --overwrite && echo "read-only 0" || echo "read-only $?"
cp -r out copied
"""


@pytest.fixture(scope="module")
def namespace() -> None:
    """A mount namespace of one's own, which not everybody may have."""
    tried = (
        subprocess.run(["unshare", "-m", "true"], capture_output=True) if shutil.which("unshare") else None
    )
    if tried is None or tried.returncode:
        pytest.skip("needs a mount namespace: unshare -m does not work here")


@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize("size", ["64k", "400k", "1500k"])
def test_a_full_disk_is_one_line_and_with_room_the_run_goes_on(
    many: Path, tmp_path: Path, size: str
) -> None:
    (tmp_path / "out").mkdir()
    script = IN_NAMESPACE.format(size=size, command=shlex.join(command(many, "--workers", "2")))
    run = subprocess.run(
        ["unshare", "-m", "bash", "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    told = [line for line in run.stdout.splitlines() if line.startswith(("rc ", "again ", "read-only "))]
    assert told == ["rc 2", "again 0", "read-only 2"]
    assert "Traceback" not in run.stderr
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert "No space left on device" in errors[0]
    assert "out/data" in errors[0]
    assert "can't write" in errors[1] or "not writable" in errors[1]
    calm = make(many, tmp_path / "calm" / "data")
    assert published(tmp_path / "copied" / "data") == published(calm)


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions don't count for root; a read-only disk does")
def test_a_folder_without_permission_is_named(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="out is not writable"):
        make(source, tmp_path / "out" / "data")


# Signals.


def group(leader: int) -> list[str]:
    """Return the living processes of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == leader and fields[0] != "Z":
            found.append(stat.parent.name)
    return found


@pytest.mark.parametrize("to", ["driver", "group"])
def test_sigterm_stops_workers_and_keeps_the_work(many: Path, tmp_path: Path, to: str) -> None:
    write(many, dialogues(6000))
    run = subprocess.Popen(
        command(many, "--workers", "2"),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    parts = tmp_path / "out" / "data.mtsft-work" / "parts"
    deadline = time.monotonic() + 120
    while not list(parts.glob("*.part")) and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    (os.kill if to == "driver" else os.killpg)(run.pid, signal.SIGTERM)
    _, text = run.communicate(timeout=120)
    assert run.returncode == 143, text
    assert (
        text.splitlines()[-1] == "terminated; the work so far is kept: run the same command again to go on"
    )
    assert "Traceback" not in text
    assert list(parts.glob("*.part"))
    assert not (tmp_path / "out" / "data.mtsft-lock").exists()
    while group(run.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not group(run.pid)


STUCK = """
import sys, threading
from mtsft_preproc import cli

def run(_):
    threading.Thread(target=threading.Event().wait).start()
    print("up", flush=True)
    threading.Event().wait()

cli._PATIENCE = 1
cli.preprocess.run = run
sys.exit(cli.preprocess_main(["--output-prefix", "x"]))
"""


def test_sigterm_ends_a_command_whose_threads_do_not_end() -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", STUCK], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "up\n"
    run.send_signal(signal.SIGTERM)
    _, text = run.communicate(timeout=60)
    assert run.returncode == 143
    assert "terminated; the work so far is kept" in text


def test_sigterm_is_as_it_was_behind_a_command(source: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert preprocess_main(["--input", str(source), "--output-prefix", str(tmp_path / "x" / "y")]) == 2
    assert signal.getsignal(signal.SIGTERM) == before


# The long proofs, a little of each.


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("races.py", ["--races", "20"]),
        ("crash_points.py", ["--every", "150", "--offset", "61"]),
        (
            "crash_points.py",
            ["--every", "9", "--offset", "2", "--modes", "kill-after", "--cases", "over a split one"],
        ),
    ],
)
def test_a_little_of_the_long_proofs(script: str, flags: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "extended" / script), *flags], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
