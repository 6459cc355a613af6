"""SQLite files: nothing that was committed is lost, whoever dies or meddles; what cannot be is said in one line."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from steerlens.errors import SteerlensError
from steerlens.runs import sqlite_file, sqlite_place
from steerlens.runs.sqlite_file import SqliteFile, damage
from steerlens.runs.sqlite_place import FileKind
from tests.processes import dying_before, ended, in_child, let_in, unprivileged

CATS = FileKind(
    name="book of cats",
    noun="book",
    holds="cats",
    made_by="meow",
    application=0x63617473,
    version=3,
    schema="CREATE TABLE cat (litter INTEGER NOT NULL, name INTEGER NOT NULL, UNIQUE (litter, name));\n",
)
LITTER = 5


def opened(path: Path | str | None, **settings: bool) -> SqliteFile:
    return SqliteFile(path, CATS, **settings)


def add(file: SqliteFile, litter: int) -> None:
    with file.transaction() as db:
        for name in range(LITTER):
            db.execute("INSERT OR IGNORE INTO cat VALUES (?, ?)", (litter, name))


def litters(path: Path) -> set[int]:
    """What a file holds, read without steerlens; checks that no litter is there in part."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return set()  # killed before there was a table
        counts = dict(db.execute("SELECT litter, count(*) FROM cat GROUP BY litter"))
        assert set(counts.values()) <= {LITTER}
        return set(counts)


def told(match: str, use: Callable[[], object]) -> None:
    with pytest.raises(SteerlensError, match=match) as error:
        use()
    assert "\n" not in str(error.value)


@pytest.fixture(params=["disk", "network"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file name on a disk of this machine, or, as far as the file can know, on a file server."""
    lie_on(request.param, tmp_path, monkeypatch)
    return tmp_path / "cats"


def lie_on(what: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = folder / "mounts"
    kind = {"disk": "ext4", "network": "nfs4"}[what]
    mounts.write_text(f"21 1 8:1 / / rw,relatime shared:1 - {kind} server:/home rw\n")
    monkeypatch.setattr(sqlite_place, "_MOUNTS", mounts)


def journal(path: Path) -> str:
    with closing(sqlite3.connect(path)) as db:
        return str(db.execute("PRAGMA journal_mode").fetchone()[0])


# --------------------------------------------------------------------------------------------------- kills, and company


def test_a_process_killed_before_any_statement_leaves_whole_transactions(path: Path, monkeypatch) -> None:
    connect = sqlite_file._connect

    def work() -> None:
        file = opened(path)
        for litter in range(3):
            add(file, litter)
        file.close()

    before: set[int] = set()
    for k in range(1, 60):
        monkeypatch.setattr(sqlite_file, "_connect", dying_before(k, connect))
        status = in_child(work)
        monkeypatch.setattr(sqlite_file, "_connect", connect)
        now = litters(path) if path.exists() else set()
        assert now >= before
        before = now
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert k > 20, "so many statements a process has"
    assert before == {0, 1, 2}
    assert journal(path) == ("wal" if sqlite_place.on_this_machine(path) else "delete")


def test_a_transaction_half_on_the_disk_is_undone(path: Path) -> None:
    """Killed with pages of an unfinished transaction in the file: its journal stays, and whoever opens it undoes."""

    def dies() -> None:
        file = opened(path)
        add(file, 0)
        with file.transaction() as db:
            db.execute("PRAGMA cache_size = 1")  # pages go to the disk before the commit
            for litter in range(1, 300):
                db.executemany("INSERT INTO cat VALUES (?, ?)", [(litter, name) for name in range(LITTER)])
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(dies) == -signal.SIGKILL
    if not sqlite_place.on_this_machine(path):
        assert path.with_name("cats-journal").stat().st_size > 0
        told("was left by a process that was killed", lambda: opened(path, writable=False))
    file = opened(path)
    add(file, 1)
    file.close()
    assert litters(path) == {0, 1}
    file = opened(path, writable=False)
    with file.reading() as db:
        assert db.execute("SELECT count(*) FROM cat").fetchone() == (2 * LITTER,)
    file.close()


def test_many_processes_make_and_fill_one_file(path: Path) -> None:
    def work(litter: int) -> None:
        file = opened(path)
        for one in range(3):
            add(file, 3 * litter + one)
        file.close()

    for number in range(3):
        path = path.with_name(f"cats{number}")
        children = [in_child(lambda n=n, path=path: work(n), wait=False) for n in range(6)]  # type: ignore[misc]
        assert [ended(child) for child in children] == [0] * 6
        assert litters(path) == set(range(18))


OTHER = (
    "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); print(*db.execute('SELECT DISTINCT litter FROM cat')); "
)


def another_process(path: Path) -> int:
    """How many litters a process sees that opens the file, reads, and closes it."""
    done = subprocess.run(
        [sys.executable, "-c", OTHER + "db.close()", path], capture_output=True, text=True, check=True
    )
    return len(done.stdout.split())


def test_opening_a_file_twice_keeps_the_locks_of_the_first(path: Path) -> None:
    """POSIX ends all locks that a process has on a file when it closes any descriptor of it, SQLite's or not.

    Without its lock the first would look as if it were gone: whoever closes the file last removes the log, and what the
    first writes then goes into a log that nobody else sees, and that dies with it.
    """
    first = opened(path)
    add(first, 0)
    second = opened(path)
    assert another_process(path) == 1
    add(first, 1)
    assert another_process(path) == 2
    add(second, 2)
    first.close()
    assert another_process(path) == 3
    second.close()
    assert litters(path) == {0, 1, 2}


def test_a_reader_does_not_keep_others_from_opening(path: Path) -> None:
    """Changing the kind of journal does not always wait by itself."""
    opened(path).close()
    with closing(sqlite3.connect(path)) as db:
        other = "wal" if journal(path) == "delete" else "delete"
        assert db.execute(f"PRAGMA journal_mode = {other}").fetchone() == (other,)
    reader = "db.execute('BEGIN'); db.execute('SELECT * FROM cat').fetchall(); print(flush=True); time.sleep(0.5)"
    with subprocess.Popen(
        [sys.executable, "-c", OTHER + "import time; " + reader, path], stdout=subprocess.PIPE
    ) as one:
        assert one.stdout is not None
        one.stdout.readline()
        one.stdout.readline()
        opened(path).close()
    assert journal(path) != other


def test_who_waits_for_a_stuck_process_is_told(path: Path, monkeypatch) -> None:
    opened(path).close()
    monkeypatch.setattr(sqlite_file, "_BUSY_SECONDS", 0.2)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        told("kept the book .* locked for 0 s; stop it", lambda: opened(path))


# ------------------------------------------------------------------------------------------------------- taken away


def meddle(how: str, path: Path) -> None:
    if how == "removed":
        path.unlink()
    elif how == "replaced":
        other = path.with_name("other")
        opened(other).close()
        other.replace(path)
    elif how == "emptied":
        os.truncate(path, 0)
    elif how == "folder moved":
        path.parent.rename(path.parent.with_name("elsewhere"))


@pytest.mark.parametrize("how", ["removed", "replaced", "emptied", "folder moved"])
def test_a_file_taken_away_takes_no_more(how: str, path: Path) -> None:
    (path.parent / "folder").mkdir()
    path = path.parent / "folder" / "cats"
    file = opened(path)
    add(file, 0)
    meddle(how, path)
    told("was removed or replaced while it was in use", lambda: add(file, 1))
    file.close()


@pytest.mark.parametrize("how", ["removed", "replaced", "folder moved"])
def test_a_file_taken_away_during_a_transaction_is_noticed(how: str, path: Path) -> None:
    (path.parent / "folder").mkdir()
    path = path.parent / "folder" / "cats"
    file = opened(path)

    def use() -> None:
        with file.transaction() as db:
            db.execute("INSERT INTO cat VALUES (0, 0)")
            meddle(how, path)

    told("was removed or replaced while it was in use", use)
    file.close()


def test_a_log_taken_away_is_noticed_and_its_commits_are_saved(tmp_path: Path, monkeypatch) -> None:
    lie_on("disk", tmp_path, monkeypatch)
    file = opened(tmp_path / "cats")
    add(file, 0)
    for tidied_up in ("cats-wal", "cats-shm"):
        (tmp_path / tidied_up).unlink()
    told("was removed or replaced", lambda: add(file, 1))
    file.close()
    assert litters(tmp_path / "cats") == {0}


# --------------------------------------------------------------------------------------------------------- file systems


@pytest.mark.parametrize(
    ("mounts", "local"),
    [
        ("1 0 8:1 / / rw - ext4 /dev/sda rw", True),
        ("1 0 8:1 / / rw shared:1 master:2 - nfs4 server:/ rw", False),
        ("1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:40 / /home/my\\040data rw - fuse.sshfs me@there:/ rw", False),
        ("2 1 0:40 / /home/my\\040data rw - lustre a@tcp:/ rw\n1 0 8:1 / / rw - ext4 /dev/sda rw", False),
        ("1 0 8:1 / / rw - nfs server:/ rw\n2 1 0:40 / /home/my\\040data rw - tmpfs none rw", True),
        ("1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:40 / /home/my rw - 9p host rw", True),
        ("1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:40 / /home rw - ext4 a rw\n3 2 0:41 / /home rw - cifs b rw", False),
    ],
)
def test_which_places_are_on_this_machine(mounts: str, local: bool, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "mounts").write_text(mounts + "\n")
    monkeypatch.setattr(sqlite_place, "_MOUNTS", tmp_path / "mounts")
    assert sqlite_place.on_this_machine(Path("/home/my data/cats")) == local


def test_without_a_list_of_mounts_a_place_is_taken_for_this_machines(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sqlite_place, "_MOUNTS", tmp_path / "none")
    assert sqlite_place.on_this_machine(tmp_path / "cats")


def test_a_file_brought_to_a_file_server_has_no_shared_log_there(tmp_path: Path, monkeypatch) -> None:
    """Its log would need memory that machines share: they would destroy each other's work, or none could read it."""
    path = tmp_path / "cats"
    lie_on("disk", tmp_path, monkeypatch)
    file = opened(path)
    add(file, 0)
    file.close()
    assert journal(path) == "wal"
    lie_on("network", tmp_path, monkeypatch)
    file = opened(path)
    add(file, 1)
    assert journal(path) == "delete"
    file.close()
    assert litters(path) == {0, 1}


def test_a_file_brought_to_where_memory_cannot_be_shared(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "cats"

    def dies() -> None:
        file = opened(path)
        add(file, 0)
        os.kill(os.getpid(), signal.SIGKILL)

    lie_on("disk", tmp_path, monkeypatch)
    assert in_child(dies) == -signal.SIGKILL
    (tmp_path / "cats-shm").unlink()
    (tmp_path / "cats-shm").symlink_to(tmp_path / "cats-shm")  # in the way of the shared memory
    told("read-only or closed", lambda: opened(path))
    told("was left by a process that was killed", lambda: opened(path, writable=False))
    lie_on("network", tmp_path, monkeypatch)
    file, other = opened(path), opened(path)
    add(file, 1)
    add(other, 2)
    file.close()
    other.close()
    file = opened(path, writable=False)
    with file.reading() as db:
        assert db.execute("SELECT count(*) FROM cat").fetchone() == (3 * LITTER,)
    file.close()


# ----------------------------------------------------------------------------------------------------------- bad places


def both(path: Path | str, match: str, reading: str | None = None) -> None:
    told(match, lambda: opened(path))
    told(reading or match, lambda: opened(path, writable=False))


def test_places_that_are_none(tmp_path: Path, monkeypatch) -> None:
    both("a\0b", "cannot be used as a book of cats: embedded null byte")
    both("~nobody-of-this-name/cats", "cannot be used as a book of cats: Could not determine home")
    both(tmp_path / ("x" * 300), "cannot be used as a book of cats: File name too long")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    both(tmp_path / "loop", "cannot be used as a book of cats: .*links?|cannot be used as a book of cats: Symlink loop")
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere" / "cats")
    for nowhere in (tmp_path / "nowhere" / "cats", tmp_path / "lost", Path(__file__) / "cats"):
        both(nowhere, "its folder does not exist; make it first", "no book at .* one written with meow")
    both(tmp_path, "it is a folder; give a file name in it", "no book at .* one written with meow")
    os.mkfifo(tmp_path / "pipe")
    for device in (tmp_path / "pipe", "/dev/null"):
        both(device, "is no book of cats .a device or a pipe", "no book at")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    both("cats", "'cats' cannot be used as a book of cats: No such file")


def test_a_link_leads_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "cats")
    file = opened(tmp_path / "link")
    add(file, 0)
    assert file.path == tmp_path / "link"
    file.close()
    assert litters(tmp_path / "cats") == {0}


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 99, 100, 511, 512, 4096, 9000])
def test_other_files_of_any_size_stay(size: int, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    for content in (b"dear diary, " * 1000, b"SQLite format 3\0" + b"it is not, " * 1000, bytes(9000)):
        path.write_bytes(content[:size])
        both(path, "is no book of cats .not an SQLite file.; it stays as it is")
        assert path.read_bytes() == content[:size]
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_file_may_be_filled_but_not_read(tmp_path: Path) -> None:
    path = tmp_path / "cats"
    path.touch()
    told("is empty: nothing has been written to it", lambda: opened(path, writable=False))
    opened(path).close()
    opened(path, writable=False).close()


def test_other_kinds_and_versions_are_refused_and_stay(tmp_path: Path) -> None:
    path = tmp_path / "cats"
    opened(path).close()
    before = path.read_bytes()
    dogs = replace(CATS, name="book of dogs", application=0x646F6773)
    for writable in (True, False):
        told("is an SQLite file but no book of dogs", lambda w=writable: SqliteFile(path, dogs, writable=w))  # type: ignore[misc]
        for version, which in ((2, "a newer steerlens"), (4, "an older steerlens")):
            kind = replace(CATS, version=version)
            told(f"has version 3.*{which}", lambda k=kind, w=writable: SqliteFile(path, k, writable=w))  # type: ignore[misc]
    assert path.read_bytes() == before


@pytest.fixture
def open_to_all(tmp_path: Path) -> Iterator[Path]:
    """A folder that unprivileged processes may enter."""
    folder = tmp_path / "folder"
    folder.mkdir()
    let_in(folder)
    yield folder
    folder.chmod(0o755)


def test_a_folder_that_nobody_may_look_into(open_to_all: Path) -> None:
    opened(open_to_all / "cats").close()
    open_to_all.chmod(0o600)
    assert unprivileged(lambda: both(open_to_all / "cats", "cannot be used as a book of cats: Permission denied")) == 0


def test_a_killed_processs_log_is_not_passed_over_where_nothing_can_be_written(open_to_all: Path) -> None:
    """Through a link too: beside the link there is no log, and the file without its log is an old one."""
    path, link = open_to_all / "cats", open_to_all.parent / "link"
    link.symlink_to(path)

    def dies() -> None:
        add(opened(path), 0)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(dies) == -signal.SIGKILL
    (open_to_all / "cats-shm").unlink()
    for file in open_to_all.iterdir():
        file.chmod(0o444)
    open_to_all.chmod(0o555)

    def reads() -> None:
        for name in (path, link):
            told("was left by a process that was killed", lambda name=name: opened(name, writable=False))  # type: ignore[misc]

    assert unprivileged(reads) == 0
    open_to_all.chmod(0o755)
    assert litters(path) == {0}


# --------------------------------------------------------------------------------------------------------------- misuse


def test_misuse_is_not_told_as_damage(tmp_path: Path) -> None:
    file = opened(tmp_path / "cats")
    errors: list[Exception] = []

    def elsewhere() -> None:
        try:
            add(file, 0)
        except SteerlensError as error:
            errors.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "only be used in that same thread; open it in the thread that uses it" in str(errors[0])
    file.close()
    told("cannot use the book .*: Cannot operate on a closed database; open", lambda: add(file, 0))


def test_what_fails_is_undone(tmp_path: Path) -> None:
    file = opened(tmp_path / "cats")

    def fail(error: BaseException) -> None:
        with file.transaction() as db:
            db.execute("INSERT INTO cat VALUES (9, 9)")
            raise error

    for error in (KeyboardInterrupt(), ZeroDivisionError()):
        with pytest.raises(type(error)):
            fail(error)
    told(r"is damaged \(a cat with two heads\); it stays", lambda: fail(damage("a cat with two heads")))
    add(file, 0)
    file.close()
    assert litters(tmp_path / "cats") == {0}


def test_every_commit_waits_for_the_disk(path: Path) -> None:
    """A power cut cannot be had here, so what SQLite is asked for must do: EXTRA, which syncs the folder as well."""
    file = opened(path)
    with file.reading() as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (3,)
    file.close()


def test_in_memory_there_is_no_file() -> None:
    file = opened(None)
    add(file, 0)
    with file.reading() as db:
        assert db.execute("SELECT count(*) FROM cat").fetchone() == (LITTER,)
    file.close()
