"""Disks that are full, and those that are read-only: one clear line, and the same command goes on when they are not."""

import os
import re
import signal
import subprocess
from contextlib import contextmanager

import pytest

from sbbridge.records import TRIAL_KEY
from sbbridge.study import cli
from sbbridge.study.store import Store
from tests.study import tiny, tiny_study
from tests.study.test_end_to_end import TINY, optuna_states, run
from tests.study.tiny import trials

SIZE = 4 * 2**20


@contextmanager
def mounted(folder, *options):
    """A file system at a folder; that takes root."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *map(str, options), str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Studies run without Ray; a driver's signal handler is put back."""
    tiny.without_ray(monkeypatch)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def study(output, *arguments):
    given = ["--preset", "together", "--dataset", "gaussian64", "--output", str(output), *map(str, arguments)]
    return cli.main(tiny_study.STUDY, lambda folder: folder / "report.html", given)


def fill(folder, leave):
    """Leaves so many bytes free."""
    state = os.statvfs(folder)
    (folder / "filler").write_bytes(bytes(max(0, state.f_bavail * state.f_frsize - leave)))


@pytest.mark.parametrize("leave", [0, 48 * 1024, 320 * 1024, 400 * 1024, 480 * 1024])
def test_a_full_disk(leave, tmp_path, capsys):
    """It is full before the study begins, while its database is made, and at several moments after."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs") as folder:
        fill(folder, leave)
        status = study(folder / "study")
        err = capsys.readouterr().err
        assert "Traceback" not in err
        last = err.splitlines()[-1]
        assert last.startswith("error: ")
        assert str(folder / "study") in last
        assert "No space left on device" in last or "disk is full" in last
        assert status in (1, 2)
        before = trials(folder / "study") if (folder / "study" / "study.json").exists() else []
        (folder / "filler").unlink()
        assert study(folder / "study") == 0, capsys.readouterr().err
        rows = trials(folder / "study")
        assert all(row in rows for row in before)
        assert [row["status"] for row in Store(str(folder / "study"), tiny.COLUMNS).trials()] == ["completed"] * 2
        assert [path.name for path in (folder / "study").rglob(".*")] == [".lock"]


@pytest.mark.slow
def test_a_disk_that_fills_up_under_ray(tmp_path):
    """What is reported is what could not be written; nothing of Ray's stays; with room, the same command goes on."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=16m", "tmpfs") as folder:
        fill(folder, 500 * 1024)
        rc, _, err = run(*TINY, "--output", folder / "study")
        assert rc in (1, 2), err
        assert "Traceback" not in err
        last = err.splitlines()[-1]
        assert last.startswith("error: ")
        assert f"{folder / 'study'}/" in last
        assert "No space left on device" in last or "disk is full" in last
        assert not (folder / "study" / ".ray").exists()
        before = trials(folder / "study")
        (folder / "filler").unlink()
        rc, _, err = run(*TINY, "--output", folder / "study")
        assert rc == 0, err
        rows = trials(folder / "study")
        assert all(row in rows for row in before)
        assert tiny.doubled(tiny.collected(folder / "study"), TRIAL_KEY) == []
        assert set(optuna_states(folder / "study", "tiny")) <= {"COMPLETE", "FAIL"}


@pytest.mark.parametrize("where", ["--output", "--storage"])
def test_a_read_only_disk(where, tmp_path, capsys):
    """Root, too, is refused in one line, whatever the permissions say."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "ro", "tmpfs") as folder:
        output = folder / "study" if where == "--output" else tmp_path / "study"
        assert study(output, *(["--storage", folder / "far"] if where == "--storage" else [])) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1), err
        probed = rf"--storage {folder / 'far'}: cannot write {folder / 'far'}/\.probe-\w+: Read-only file system"
        refused = rf"--output {folder / 'study'} cannot be written"
        assert re.fullmatch(f"error: {refused if where == '--output' else probed}\n", err), err
        assert not (tmp_path / "study").exists()


def test_a_study_whose_disk_has_become_read_only(tmp_path, capsys):
    folder = tmp_path / "disk"
    assert study(folder / "study") == 0
    before = tiny.files(folder)
    capsys.readouterr()
    with mounted(folder, "--bind", "-o", "ro", folder):
        assert study(folder / "study", "--seeds", "2") == 2
        err = capsys.readouterr().err
    assert err == f"error: --output {folder / 'study'} cannot be written\n"
    assert tiny.files(folder) == before
    assert study(folder / "study", "--seeds", "2") == 0
