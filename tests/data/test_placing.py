"""Data at a URI: one copy a machine, whole or not at all, verified, made again when it is no longer what is there."""

import errno
import hashlib
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from sbbridge.data import DataError, placing
from sbbridge.data.placing import joined, placed, shown, there

FILES = {"a.bin": b"a" * 3000, "sub/b.gz": b"not compressed", "sub/deep/empty": b""}
CONTEXT = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(placing, "_checked", set())
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path):
    """A folder that stands for a bucket's."""
    folder = tmp_path / "bucket" / "my data"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def copies(monkeypatch):
    """Names that were copied, a list a copy."""
    made, real = [], placing._fetch

    def counted(filesystem, parent, listing, target):
        made.append(sorted(listing))
        real(filesystem, parent, listing, target)

    monkeypatch.setattr(placing, "_fetch", counted)
    return made


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def as_another_process():
    placing._checked.clear()


def left_behind(cache):
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def refusal(location, *words, **arguments):
    with pytest.raises(DataError) as caught:
        placed(location, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == [], message
    return message


class TestLocations:
    def test_a_path_stays_where_it_is(self, tmp_path, cache):
        assert placed(tmp_path / "absent") == placed(str(tmp_path / "absent")) == tmp_path / "absent"
        assert not cache.exists()

    def test_joining(self, tmp_path):
        assert joined(tmp_path, "a") == joined(str(tmp_path), "a") == tmp_path / "a"
        assert joined("s3://b/data/?endpoint_override=h:1&scheme=http", "x y") == (
            "s3://b/data/x%20y?endpoint_override=h:1&scheme=http"
        )
        assert joined("s3://b", "a") == "s3://b/a"
        assert joined("file:///tmp/x", "a") == "file:///tmp/x/a"
        assert joined("s3://b/data", "/absolute") == Path("/absolute")
        assert joined(tmp_path, "s3://b/data") == "s3://b/data"

    def test_what_is_shown_holds_no_secret(self):
        assert shown("s3://key:secret@b/data?endpoint_override=h:1&token=hidden") == "s3://b/data?endpoint_override=h:1"
        assert shown("s3://b/data") == "s3://b/data"
        assert shown(Path("/data@home")) == "/data@home"


class TestCopying:
    def test_a_folder_is_copied_byte_for_byte_and_once(self, source, cache, copies, capsys):
        copy = placed(source.as_uri())
        assert contents(copy) == FILES
        assert copy.name == "my data"
        assert cache in copy.parents
        assert "copying file://" in capsys.readouterr().err
        as_another_process()
        assert placed(f"{source.as_uri()}/") == placed(source.as_uri()) == copy
        assert len(copies) == 1
        assert capsys.readouterr().err == ""

    def test_a_file_is_copied_alone(self, source, copies):
        copy = placed((source / "a.bin").as_uri())
        assert copy.read_bytes() == FILES["a.bin"]
        assert copies == [["a.bin"]]

    def test_folders_of_one_name_do_not_meet(self, source, tmp_path):
        shutil.copytree(source, tmp_path / "other" / source.name)
        (tmp_path / "other" / source.name / "a.bin").write_bytes(b"other")
        one, other = (placed(folder.as_uri()) for folder in (source, tmp_path / "other" / source.name))
        assert (one / "a.bin").read_bytes() != (other / "a.bin").read_bytes()

    def test_a_process_looks_at_the_listing_once_and_at_an_emptied_cache_again(self, source, cache, copies):
        copy = placed(source.as_uri())
        (source / "late").write_bytes(b"late")
        assert contents(placed(source.as_uri())) == FILES
        shutil.rmtree(cache)
        assert contents(placed(source.as_uri())) == {**FILES, "late": b"late"}
        assert copy.exists()
        assert len(copies) == 2

    @pytest.mark.parametrize("change", ["torn copy", "lost file of the copy", "torn listing of the copy", "no listing",
                                        "other size", "other content", "other file"])  # fmt: skip
    def test_a_copy_that_is_not_what_is_there_is_made_again(self, change, source, copies):
        copy = placed(source.as_uri())
        listing = copy.parent / placing._LISTING
        file = source / "a.bin"
        if change == "torn copy":
            (copy / "a.bin").write_bytes(b"a" * 2999)
        elif change == "lost file of the copy":
            (copy / "sub" / "b.gz").unlink()
        elif change == "torn listing of the copy":
            listing.write_text(listing.read_text()[:-5])
        elif change == "no listing":
            listing.unlink()
        elif change == "other file":
            (source / "sub" / "c").write_bytes(b"c")
        else:
            file.write_bytes(b"b" * (3000 if change == "other content" else 3001))
            os.utime(file, ns=(0, file.stat().st_mtime_ns + 10**9))
        as_another_process()
        assert contents(placed(source.as_uri())) == contents(source)
        assert len(copies) == 2

    def test_a_killed_copy_is_not_taken_for_a_whole_one(self, source, cache):
        stuck = CONTEXT.Process(target=_copy_and_hang, args=(source.as_uri(), cache))
        stuck.start()
        _wait_for(cache / "half")
        os.kill(stuck.pid, signal.SIGKILL)
        stuck.join()
        (partial,) = cache.glob("*.partial")
        assert len(contents(partial)) == 1
        assert left_behind(cache) == ["half", partial.name]
        copy = placed(source.as_uri())
        assert contents(copy) == FILES
        assert left_behind(cache) == ["half", copy.parent.name]

    def test_processes_that_start_at_once_make_one_copy(self, source, cache):
        start = CONTEXT.Barrier(3)
        workers = [CONTEXT.Process(target=_copy_slowly, args=(source.as_uri(), cache, start, i)) for i in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
            assert worker.exitcode == 0
        assert len(list(cache.glob("made*"))) == 1

    def test_an_interrupt_leaves_nothing(self, source, cache, monkeypatch):
        def interrupted(*arguments):
            raise KeyboardInterrupt

        monkeypatch.setattr(placing, "_verify", interrupted)
        with pytest.raises(KeyboardInterrupt):
            placed(source.as_uri())
        assert left_behind(cache) == []


def _copy_and_hang(uri, cache):
    real = placing._fetch

    def half(filesystem, parent, listing, target):
        real(filesystem, parent, dict(list(listing.items())[:1]), target)
        (cache / "half").touch()
        time.sleep(60)

    placing._fetch = half
    placed(uri)


def _copy_slowly(uri, cache, start, i):
    real = placing._fetch

    def counted(*arguments):
        (cache / f"made{i}").touch()
        time.sleep(0.2)
        real(*arguments)

    placing._fetch = counted
    start.wait(30)
    assert contents(placed(uri)) == FILES


def _wait_for(path):
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.01)


class TestChecksums:
    def write(self, folder, change=None):
        lines = {name: f"{hashlib.sha256(content).hexdigest()}  {name}" for name, content in FILES.items()}
        lines["sub/b.gz"] = lines["sub/b.gz"].replace("  ", " *./")  # binary mode, as of find
        (folder / "SHA256SUMS").write_text("".join(f"{line}\n" for line in (lines | (change or {})).values()))

    def test_right_ones(self, source):
        self.write(source)
        assert contents(placed(source.as_uri())) == contents(source)

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            (f"{'0' * 64}  a.bin", ("a.bin has the checksum", "0" * 64)),
            (f"{'0' * 64}  absent.bin", ("absent.bin is missing",)),
            (f"{'0' * 64}  ../../out", ("../../out is missing",)),
            (f"{'0' * 40}  a.bin", ("SHA256SUMS is not as sha256sum writes it",)),
        ],
    )
    def test_wrong_ones_name_the_file_and_leave_no_copy(self, line, words, source, cache):
        self.write(source, {"a.bin": line})
        refusal(source.as_uri(), shown(source.as_uri()), *words)
        assert left_behind(cache) == []
        self.write(source)
        assert contents(placed(source.as_uri())) == contents(source)

    def test_of_a_file_they_lie_beside_it(self, source, cache):
        self.write(source)
        assert placed((source / "a.bin").as_uri()).read_bytes() == FILES["a.bin"]
        self.write(source, {"a.bin": f"{'0' * 64}  a.bin"})
        refusal((source / "a.bin").as_uri().replace("a.bin", "./a.bin"), "a.bin has the checksum")
        assert placed((source / "sub" / "b.gz").as_uri()).read_bytes() == FILES["sub/b.gz"]

    def test_that_the_data_bring(self, source, cache):
        def md5(folder):
            return {"a.bin": hashlib.md5((folder / "a.bin").read_bytes()).hexdigest().upper()}

        assert contents(placed(source.as_uri(), md5)) == FILES
        as_another_process()
        shutil.rmtree(cache)
        refusal(source.as_uri(), "a.bin has the checksum", "f" * 32, sums=lambda folder: {"a.bin": "f" * 32})
        refusal(source.as_uri(), "lost is missing", sums=lambda folder: {"lost": "f" * 32})


class TestProblems:
    def test_nothing_there(self, source, cache):
        refusal(joined(source.as_uri(), "absent"), "absent: no file is there")
        refusal((source.parent.parent / "no" / "data").as_uri(), "no file is there, nor is there", "/no")
        (source / "empty").mkdir()
        refusal((source / "empty").as_uri(), "empty: no file is there")
        assert left_behind(cache) == []

    def test_data_that_were_removed_are_missed_though_there_is_a_copy(self, source):
        placed(source.as_uri())
        source.rename(source.with_name("moved"))
        as_another_process()
        refusal(source.as_uri(), "no file is there")

    @pytest.mark.parametrize("uri", ["foo://bucket/data", "s3://key:secret@bucket/data", "file://data", "s3://"])
    def test_uris_that_nothing_opens(self, uri):
        assert "secret" not in refusal(uri, shown(uri))

    def test_a_copy_will_do_where_the_uri_cannot_be_reached(self, source, monkeypatch, capsys):
        copy = placed(source.as_uri())
        for error in (OSError("connection refused"), ValueError("no such host")):
            monkeypatch.setattr(placing, "open_storage", _raising(error))
            as_another_process()
            capsys.readouterr()
            assert placed(source.as_uri()) == copy
            assert "cannot be read, its copy in" in capsys.readouterr().err
        (copy / "a.bin").write_bytes(b"torn")
        as_another_process()
        refusal(source.as_uri(), "cannot be read: no such host")

    def test_a_disk_that_is_too_small(self, source, cache, monkeypatch):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9000, 8000, 1000))
        refusal(source.as_uri(), "needs 3.01e-06 GB", "has 1e-06 GB", str(cache), "SB_CACHE")
        assert left_behind(cache) == []

    def test_a_disk_that_fills_up_meanwhile(self, source, cache, monkeypatch):
        monkeypatch.setattr(placing, "_fetch", _raising(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
        refusal(source.as_uri(), "cannot be copied to", str(cache), "SB_CACHE", "No space left on device")
        assert left_behind(cache) == []

    def test_data_that_change_while_they_are_copied(self, source, cache, monkeypatch):
        real = placing._fetch

        def changing(*arguments):
            (source / "a.bin").write_bytes(b"shorter")
            real(*arguments)

        monkeypatch.setattr(placing, "_fetch", changing)
        refusal(source.as_uri(), "has changed while it was copied")
        assert left_behind(cache) == []

    def test_names_that_lead_out_of_the_folder(self, source, cache, monkeypatch):
        real = placing.open_storage

        class Hostile:
            def get_file_info(self, asked):
                infos = self.filesystem.get_file_info(asked)
                return infos if isinstance(asked, list) else [_Info(f"{self.path}/../../evil"), *infos]

        def hostile(uri, *attempts):
            made = Hostile()
            made.filesystem, made.path = real(uri)
            return made, made.path

        monkeypatch.setattr(placing, "open_storage", hostile)
        refusal(source.as_uri(), "../../evil leads out of the folder")
        assert left_behind(cache) == []

    def test_a_cache_that_cannot_be_written(self, source, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("SB_CACHE", str(tmp_path / "file"))
        refusal(source.as_uri(), "cannot be copied to", "SB_CACHE")


class _Info:
    is_file, size, mtime_ns = True, 1, 0

    def __init__(self, path):
        self.path = path


def _raising(error):
    def raising(*arguments):
        raise error

    return raising


class TestNames:
    ODD = ("what?.png", "a#b.png", "%41.png", "*.png", "[a].png", "c:d.png", "'\".png", "x\ny.png", "-rf", "b\\c",
           "n" * 200, "ä\u2028\u0085.png")  # fmt: skip

    def test_any_text_is_copied_and_verified(self, source):
        for name in self.ODD:
            (source / name).write_bytes(name.encode())

        def escaped(name):  # as sha256sum does
            plain = name.replace("\\", "\\\\").replace("\n", "\\n")
            return f"{'' if plain == name else chr(92)}{hashlib.sha256(name.encode()).hexdigest()}  {plain}\n"

        (source / "SHA256SUMS").write_text("".join(map(escaped, self.ODD)))
        copy = placed(source.as_uri())
        assert contents(copy) == contents(source)

    @pytest.mark.parametrize("name", [*ODD, "n" * 250])
    def test_a_folder_of_any_name_below_a_root(self, tmp_path, name):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_bytes(b"a")
        assert joined(tmp_path, name) == tmp_path / name
        below = joined(tmp_path.as_uri(), name)
        assert below == (tmp_path / name).as_uri()
        assert contents(placed(below)) == {"a": b"a"}

    def test_bytes_that_are_no_text_are_named_in_one_line(self, source, tmp_path):
        name = os.fsdecode(b"caf\xe9")
        (source / name).write_bytes(b"x")
        refusal(source.as_uri(), r"caf\xe9", "not UTF-8", "give the folder's path")
        assert placed(source) == source
        refusal(joined(source.as_uri(), name), "caf")
        assert shown(tmp_path / name) == f"{tmp_path}/caf\\xe9"

    def test_dangling_links_are_named(self, source, capsys):
        (source / "link").symlink_to("gone")
        assert "link" not in contents(placed(source.as_uri()))
        words = f"left out 1 links to files that are not there, the first is {source / 'link'}"
        assert words in capsys.readouterr().err


def test_whether_something_is_there_is_known_without_a_copy(source, copies, cache):
    uri = f"file://{source.parent}/my%20data"
    assert [there(place) for place in (source, str(source / "a.bin"), uri, f"{uri}/a.bin")] == [True] * 4
    assert [there(place) for place in (source / "c", f"{uri}/c", f"file://{source.parent}/other")] == [False] * 3
    assert copies == []
    assert not cache.exists()


def test_a_copy_will_do_where_the_uri_cannot_be_reached(source, monkeypatch):
    def silent(location, attempts=None):
        raise OSError("no route to host")

    uri = f"file://{source.parent}/my%20data"
    placed(uri)
    monkeypatch.setattr(placing, "open_storage", silent)
    assert there(uri)
    with pytest.raises(DataError, match="cannot be read: no route to host"):
        there(f"{uri}/a.bin")
