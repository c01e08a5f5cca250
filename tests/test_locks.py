"""Locks: one process at a time, the holder has a name, and a process that is killed holds nothing."""

import errno
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

import filelock
import pytest

from tabzoo.locks import hold, lock


def in_child(work: Callable[[], object]) -> int:
    """Runs this in a process of its own; its number."""
    if (process := os.fork()) == 0:
        try:
            work()
        finally:
            os._exit(0)
    return process


def test_the_holder_is_named_and_the_file_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with hold(path):
        assert path.read_text().strip().startswith(f"process {os.getpid()} on ")
        with pytest.raises(BlockingIOError, match=f"^process {os.getpid()} on "), hold(path):
            pass
    assert not path.exists()


def test_the_name_of_the_holder_can_be_read_where_a_lock_keeps_readers_out(tmp_path: Path) -> None:
    """On Windows, nobody else can read the byte that filelock locks, which is the first one."""
    with hold(tmp_path / ".lock"):
        assert (tmp_path / ".lock").read_bytes()[:1] == b" "


def test_a_second_process_waits_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ready, order = os.pipe(), os.pipe()

    def work() -> None:
        with lock(tmp_path / "entry"):
            os.write(ready[1], b".")
            while not (tmp_path / "waiting").exists():
                pass
            os.write(order[1], b"first ")

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            (tmp_path / "waiting").touch()

    process = in_child(work)
    os.read(ready[0], 1)
    watch = Watch()
    logging.getLogger("tabzoo.locks").addHandler(watch)
    try:
        with lock(tmp_path / "entry") as locked:
            os.write(order[1], b"second")
    finally:
        logging.getLogger("tabzoo.locks").removeHandler(watch)
        os.waitpid(process, 0)
    assert locked
    assert os.read(order[0], 20) == b"first second"
    assert [record.getMessage() for record in caplog.records] == [
        f"waiting for another process that is using {tmp_path / 'entry'}"
    ]


def test_a_killed_process_holds_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def work() -> None:
        with lock(tmp_path / "entry"), hold(tmp_path / ".lock"):
            os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(in_child(work), 0)
    assert (tmp_path / ".lock").exists()
    with lock(tmp_path / "entry") as locked, hold(tmp_path / ".lock"):
        assert locked
    assert not caplog.records


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_nobody_is_stopped(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object, **__: object) -> bool:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock, "lock_descriptor", no_locks)
    with lock(tmp_path / "entry") as locked, hold(tmp_path / ".lock"), hold(tmp_path / ".lock"):
        assert not locked
    assert not (tmp_path / ".lock").exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    for name in (".lock", ".entry.lock"):
        (tmp_path / name).symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"), hold(tmp_path / ".lock"):
        pass
    with lock(tmp_path / "entry") as locked:
        assert not locked
    assert (tmp_path / "precious").read_text() == "precious"
