"""Whether the database is the one that was served before, as the service finds out at its start."""

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacesetter_service.core.errors import StorageReplacedError, StorageUnavailableError
from pacesetter_service.core.session import create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.store.continuity import Continuity, Count, Mark, judged
from pacesetter_service.store.listing import Listing
from pacesetter_service.store.port import Changes, Stored
from pacesetter_service.store.served import UnusableDatabaseError
from pacesetter_service.store.sqlite import SqliteStore
from written import NOW, write

counts = st.none() | st.builds(Count, st.sampled_from(["one", "two"]), st.integers(0, 3))


@given(counts, counts)
def test_an_epoch_goes_on_only_where_nothing_can_be_missing(
    stored: Count | None, marked: Count | None
) -> None:
    """The mark must be of this database, and must not count more commits than the database has."""
    found = judged(stored, marked, "fresh")
    vouched = (
        stored is not None
        and marked is not None
        and stored.epoch == marked.epoch
        and stored.commits >= marked.commits
    )
    assert (found.reason == "continued") == vouched
    assert found.epoch == (stored.epoch if vouched and stored is not None else "fresh")


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5))
def test_a_mark_keeps_what_was_written_last(tmp_path_factory, commits: list[int]) -> None:
    """However many digits the previous number had."""
    mark = Mark(tmp_path_factory.mktemp("mark") / "a.db")
    assert mark.read() is None
    for number in commits:
        mark.write(Count("0123456789abcdef", number))
    assert mark.read() == Count("0123456789abcdef", commits[-1])
    mark.close()


def test_a_damaged_mark_is_no_mark(tmp_path: Path) -> None:
    """A mark with any byte changed, or cut off anywhere, is not read as a mark."""
    mark = Mark(tmp_path / "a.db")
    mark.write(Count("0123456789abcdef", 41))
    path = tmp_path / "a.db-mark"
    whole = path.read_bytes()
    line = len(whole.rstrip())
    for at in range(line):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert mark.read() is None, at
        path.write_bytes(whole[:at])
        assert mark.read() is None, at
    mark.close()


def test_a_mark_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """The service does not start; the message names the file, why, and what to do."""
    (tmp_path / "a.db-mark").mkdir()
    with pytest.raises(UnusableDatabaseError, match=r"a\.db-mark.*Is a directory; let the user"):
        opened(tmp_path)


def opened(folder: Path) -> SqliteStore:
    """Open the database of a folder."""
    return SqliteStore(f"sqlite:///{folder / 'a.db'}")


def commit(store: SqliteStore, *names: str) -> None:
    """Commit once for each name."""
    for name in names:
        spec = SessionSpec.model_validate({"name": name, "base_lr": 0.1})
        write(store, Changes(Stored(store.new_id(), create(spec), 0, NOW, ())))


def image(source: Path, target: Path) -> Path:
    """Copy everything as a power failure would leave it."""
    return Path(shutil.copytree(source, target, ignore=shutil.ignore_patterns("*-shm")))


def found_in(folder: Path) -> Continuity:
    """Open the store, close it, and return what it found."""
    store = opened(folder)
    store.close()
    return store.continuity


def names_in(folder: Path) -> list[str]:
    """Return the names of the sessions."""
    store = opened(folder)
    try:
        found = store.page(Listing(), 99)
    finally:
        store.close()
    return [each.session.spec.name for each in found]


def test_a_database_that_is_all_there_keeps_its_epoch(tmp_path: Path) -> None:
    """It does so after a clean stop and after a crash; a new database begins with an epoch."""
    folder = tmp_path / "kept"
    folder.mkdir()
    store = opened(folder)
    commit(store, "a", "b")
    crashed = image(folder, tmp_path / "crashed")
    store.close()
    assert store.continuity.reason == "created"
    for each in (folder, crashed):
        assert found_in(each) == Continuity(store.epoch, "continued")
        assert names_in(each) == ["a", "b"]


def test_two_databases_have_two_epochs(tmp_path: Path) -> None:
    """An epoch is drawn at random, not derived from anything that two databases may share."""
    epochs = set()
    for name in "ab":
        (tmp_path / name).mkdir()
        epochs.add(found_in(tmp_path / name).epoch)
    assert len(epochs) == 2


def test_an_older_copy_in_its_place_is_told(tmp_path: Path) -> None:
    """The start reports how many commits are missing, and keeps the new epoch from then on."""
    store = opened(tmp_path)
    commit(store, "a")
    store.close()
    shutil.copy(tmp_path / "a.db", tmp_path / "backup")
    first = store.epoch
    store = opened(tmp_path)
    commit(store, "b", "c", "d")
    store.close()
    shutil.copy(tmp_path / "backup", tmp_path / "a.db")
    found = found_in(tmp_path)
    assert (found.reason, found.lost) == ("went_back", 3)
    assert found.epoch != first
    assert found_in(tmp_path) == Continuity(found.epoch, "continued")
    assert names_in(tmp_path) == ["a"]


def test_the_newest_copy_in_its_place_is_no_other(tmp_path: Path) -> None:
    """A copy that has every commit has lost nothing, and its epoch goes on."""
    store = opened(tmp_path)
    commit(store, "a")
    store.close()
    shutil.copy(tmp_path / "a.db", tmp_path / "backup")
    (tmp_path / "a.db").unlink()
    shutil.copy(tmp_path / "backup", tmp_path / "a.db")
    assert found_in(tmp_path) == Continuity(store.epoch, "continued")


def _cut(log: Path) -> None:
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size // 2)


def _damage(log: Path) -> None:
    with log.open("r+b") as file:
        file.seek(log.stat().st_size // 2)
        file.write(b"\xff" * 64)


def _damage_start(log: Path) -> None:
    with log.open("r+b") as file:
        file.write(b"\xff" * 16)


@pytest.mark.parametrize("harm", [_cut, _damage, _damage_start, Path.unlink])
def test_a_log_that_lost_commits_is_told(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    """SQLite reads what it can of a damaged log and does not report the rest."""
    folder = tmp_path / "served"
    folder.mkdir()
    opened(folder).close()
    store = opened(folder)
    commit(store, *(f"s{number}" for number in range(8)))
    crashed = image(folder, tmp_path / "crashed")
    store.close()
    harm(crashed / "a.db-wal")
    found = found_in(crashed)
    assert found.reason == "went_back"
    assert found.lost is not None
    assert found.lost > 0
    assert found.epoch != store.epoch


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"nonsense")])
def test_a_database_without_its_mark_begins_an_epoch(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    """Without a mark nothing shows that the database is the newest, so its old epoch ends."""
    before = found_in(tmp_path)
    harm(tmp_path / "a.db-mark")
    found = found_in(tmp_path)
    assert (found.reason, found.epoch != before.epoch) == ("unmarked", True)


@pytest.mark.parametrize("new", [True, False])
def test_another_database_in_its_place_begins_an_epoch(tmp_path: Path, new: bool) -> None:
    """It may be empty, because the old one was deleted, or one with its own history."""
    before = found_in(tmp_path)
    (tmp_path / "a.db").unlink()
    if not new:
        (tmp_path / "other").mkdir()
        store = opened(tmp_path / "other")
        commit(store, "a", "b", "c")
        store.close()
        shutil.copy(tmp_path / "other" / "a.db", tmp_path / "a.db")
    found = found_in(tmp_path)
    assert found.reason == "another"
    assert found.epoch not in {before.epoch, "" if new else store.epoch}


def test_an_older_copy_of_all_files_is_not_seen_here(tmp_path: Path) -> None:
    """The files agree with each other: only a client that was given more can tell."""
    folder = tmp_path / "served"
    folder.mkdir()
    store = opened(folder)
    commit(store, "a")
    store.close()
    older = image(folder, tmp_path / "older")
    store = opened(folder)
    commit(store, "b")
    store.close()
    assert found_in(older) == Continuity(store.epoch, "continued")


def crashed_behind_a_backup(folder: Path, crashed: Path, *, commits: int) -> SqliteStore:
    """Back a database up at one commit, go on past some checkpoints, and crash."""
    folder.mkdir()
    store = opened(folder)
    commit(store, "old")
    store.close()
    shutil.copy(folder / "a.db", folder / "backup")
    store = opened(folder)
    commit(store, *(f"s{number}" for number in range(commits)))
    image(folder, crashed)
    store.close()
    return store


@pytest.mark.parametrize("commits", [150, 400])
def test_an_older_copy_under_a_newer_log_is_told(tmp_path: Path, commits: int) -> None:
    """The log belongs to another file: it is set aside, and the copy stays as it was."""
    crashed = tmp_path / "crashed"
    before = crashed_behind_a_backup(tmp_path / "served", crashed, commits=commits)
    log = (crashed / "a.db-wal").read_bytes()
    shutil.copy(crashed / "backup", crashed / "a.db")
    found = found_in(crashed)
    assert (found.reason, found.lost) == ("went_back", commits)
    assert found.epoch != before.epoch
    assert names_in(crashed) == ["old"]
    assert (crashed / "a.db-wal-aside").read_bytes() == log


def test_an_older_copy_under_a_log_that_has_all_since_loses_nothing(tmp_path: Path) -> None:
    """Until the first checkpoint, the file equals the copy."""
    crashed = tmp_path / "crashed"
    before = crashed_behind_a_backup(tmp_path / "served", crashed, commits=5)
    shutil.copy(crashed / "backup", crashed / "a.db")
    assert found_in(crashed) == Continuity(before.epoch, "continued")
    assert len(names_in(crashed)) == 6


def test_a_backup_that_was_made_while_it_ran_is_older_than_the_next_checkpoint(
    tmp_path: Path,
) -> None:
    """A copy of a running database is recognised too: what counts is the checkpoints since."""
    folder, crashed = tmp_path / "served", tmp_path / "crashed"
    folder.mkdir()
    store = opened(folder)
    commit(store, *(f"s{number}" for number in range(20)))
    with closing(sqlite3.connect(folder / "a.db")) as source:
        source.execute("VACUUM INTO ?", (str(folder / "backup"),))
    commit(store, *(f"t{number}" for number in range(300)))
    image(folder, crashed)
    store.close()
    shutil.copy(crashed / "backup", crashed / "a.db")
    found = found_in(crashed)
    assert (found.reason, found.lost) == ("went_back", 300)


@pytest.mark.parametrize("writes", [2, 0])
def test_a_file_that_is_overwritten_in_place_is_told(tmp_path: Path, writes: int) -> None:
    """Nothing is acknowledged from then on, though the file's name and inode are the same.

    The next start detects it too, whether or not a write was attempted.
    """
    store = opened(tmp_path)
    commit(store, "a")
    store.close()
    shutil.copy(tmp_path / "a.db", tmp_path / "backup")
    store = opened(tmp_path)
    commit(store, *(f"s{number}" for number in range(300)))
    shutil.copyfile(tmp_path / "backup", tmp_path / "a.db")
    for name in range(writes):
        with pytest.raises(StorageReplacedError, match="overwritten by an older copy"):
            commit(store, f"t{name}")
        with pytest.raises(StorageReplacedError):
            store.check()
    store.close()
    found = found_in(tmp_path)
    assert (found.reason, found.lost) == ("went_back", 300)
    assert names_in(tmp_path) == ["a"]


def test_no_alarm_is_raised_while_nobody_interferes(tmp_path: Path) -> None:
    """Commits of any size, readers that delay checkpoints, stops, crashes and touches pass."""
    random = Random(20)
    folder = tmp_path / "0"
    folder.mkdir()
    epoch, names = found_in(folder).epoch, 0
    for life in range(1, 13):
        store = opened(folder)
        assert store.continuity == Continuity(epoch, "continued"), life
        for _ in range(random.randint(1, 6)):
            with store.snapshot() if random.random() < 0.3 else nullcontext() as reader:
                if reader is not None:
                    reader.exec_driver_sql("SELECT count(*) FROM sessions")
                for _ in range(random.randint(1, 60)):
                    names += 1
                    commit(store, f"s{names}")
            if random.random() < 0.3:
                (folder / "a.db").touch()
            if random.random() < 0.3:
                with closing(sqlite3.connect(folder / "a.db")) as other:
                    other.execute("PRAGMA wal_checkpoint(PASSIVE)")
        crashed = image(folder, tmp_path / str(life))
        store.close()
        folder = folder if random.random() < 0.5 else crashed
    assert len(names_in(folder)) == min(names, 99)


@pytest.mark.parametrize("when", range(6))
def test_a_checkpoint_that_was_interrupted_raises_no_alarm(tmp_path: Path, when: int) -> None:
    """A file with only some pages of a checkpoint is complete as long as its log is there."""
    folder = tmp_path / "served"
    folder.mkdir()
    store = opened(folder)
    commit(store, *(f"s{number}" for number in range(100 + when)))
    before = image(folder, tmp_path / "before")
    with closing(sqlite3.connect(folder / "a.db")) as other:
        other.execute("PRAGMA wal_checkpoint(PASSIVE)")
    new, old = (folder / "a.db").read_bytes(), (before / "a.db").read_bytes()
    store.close()
    half = len(new) * when // 6 // 4096 * 4096
    (before / "a.db").write_bytes(new[:half] + old[half:])
    assert found_in(before) == Continuity(store.epoch, "continued")
    assert len(names_in(before)) == min(100 + when, 99)


def test_a_commit_is_valid_whose_mark_cannot_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so; the next commit makes up for it, and nothing seems to be missing later."""
    store = opened(tmp_path)
    commit(store, "one")
    mark = os.dup(store._mark._descriptor)
    with Path("/dev/full").open("r+b", buffering=0) as full:
        os.dup2(full.fileno(), store._mark._descriptor)
        commit(store, "two")
        os.dup2(mark, store._mark._descriptor)
    os.close(mark)
    assert "mark_failed" in caplog.text
    assert store._mark.read().commits == 1
    commit(store, "three")
    assert store._mark.read().commits == 3
    store.close()
    again = opened(tmp_path)
    assert again.continuity.reason == "continued"
    assert all(again.load(name) is not None for name in ("one", "two", "three"))
    again.close()


@pytest.mark.parametrize(
    ("nth", "said", "kept"),
    [(1, "nothing of this call was kept", False), (2, "was kept is not known", True)],
)
def test_a_disk_that_fails_around_a_commit_is_not_said_to_have_kept_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int, said: str, kept: bool
) -> None:
    """Before the commit, nothing is kept; after it, that would be wrong to say."""
    store = opened(tmp_path)
    seen = []

    def fails() -> bool:
        seen.append(1)
        if len(seen) == nth:
            raise OSError(errno.EIO, "Input/output error")
        return False

    monkeypatch.setattr(store._file, "was_written", fails)
    with pytest.raises(StorageUnavailableError, match=said):
        commit(store, "one")
    assert (store.load("one") is not None) == kept
    store.close()


def test_a_mark_that_fails_at_the_end_is_closed(tmp_path: Path) -> None:
    """The flush of a mark is no reason to end with an error."""
    store = opened(tmp_path)
    reading, writing = os.pipe()
    os.dup2(writing, store._mark._descriptor)  # a pipe cannot be flushed
    store.close()
    os.close(reading)
    os.close(writing)


def test_a_mark_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """The service does not start; the message names the file, and why."""
    mark = Mark(tmp_path / "a.db")
    reading, writing = os.pipe()
    os.dup2(reading, mark._descriptor)  # a pipe has no places to read from
    with pytest.raises(UnusableDatabaseError, match=r"a\.db-mark.*cannot be read: Illegal seek"):
        mark.read()
    for each in (reading, writing, mark._descriptor):
        os.close(each)


def test_a_database_that_cannot_be_compacted_is_no_traceback(tmp_path: Path) -> None:
    """What SQLite says is told in a sentence."""
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
        other.execute("CREATE TABLE older (x)")  # its file keeps the space of removed rows
        store = opened(tmp_path)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailableError, match="database is locked"):
            store.compact()
        other.execute("ROLLBACK")
        assert store.compact()
        store.close()
