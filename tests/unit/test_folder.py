"""The container's folder and its ledger: whole files or none, names, locks, lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ocimk.container import ledger
from ocimk.container.folder import Folder, check_id
from ocimk.errors import Error

LIB = str(Path(__file__).resolve().parents[2] / "lib")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(str(tmp_path / "root" / "c1"))
    made.make("/bundle", {"ociVersion": "1.2.0"})
    made.release()
    return made


# ---- making and finding -----------------------------------------------------------------------------------


def test_a_new_folder_is_ours_alone_and_says_creating(folder: Folder) -> None:
    assert os.stat(folder.path).st_mode & 0o777 == 0o700
    assert os.stat(f"{folder.path}/state.json").st_mode & 0o777 == 0o600
    assert json.loads(folder.read("state.json"))["status"] == "creating"


def test_a_second_of_the_same_name_leaves_the_first_untouched(folder: Folder) -> None:
    before = folder.read("state.json")
    with pytest.raises(Error, match="already exists"):
        Folder(folder.path).make("/other")
    assert folder.read("state.json") == before


def test_of_many_that_make_the_same_one_wins(tmp_path: Path) -> None:
    text = "import sys; sys.path.insert(0, sys.argv[1]); from ocimk.container.folder import Folder; "
    text += "sys.stdin.read(); Folder(sys.argv[2]).make('/b')"
    programs = [
        subprocess.Popen([sys.executable, "-c", text, LIB, str(tmp_path / "c")], stdin=-1, stderr=-1)
        for _ in range(8)
    ]
    for program in programs:
        assert program.stdin is not None
        program.stdin.close()
    errors = []
    for program in programs:
        assert program.stderr is not None
        errors.append(program.stderr.read().decode())
        program.stderr.close()
        program.wait()
    assert sorted(program.returncode for program in programs) == [0, 1, 1, 1, 1, 1, 1, 1]
    assert all("already exists" in told for told in errors if told)


def test_existing_and_missing(folder: Folder, tmp_path: Path) -> None:
    assert Folder.existing(str(tmp_path / "root"), "c1").bundle == "/bundle"
    with pytest.raises(Error, match="container does not exist"):
        Folder.existing(str(tmp_path / "root"), "c2")


def test_a_bundle_is_opened_as_one(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"ociVersion": "1.0.0", "root": {"path": "r"}}')
    bundle = Folder.open(str(tmp_path))
    assert (bundle.path, bundle.bundle, bundle.rootfs) == ("", str(tmp_path), f"{tmp_path}/r")
    with pytest.raises(Error, match="no such directory"):
        Folder.open(str(tmp_path / "none"))


@pytest.mark.parametrize("name", ["a", "a.b_c+d-e", "A1", "..a", "-", "x" * 255])
def test_good_names(name: str) -> None:
    check_id(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ä", "a\n", "a:b", "x" * 256, "²", ".cache"])
def test_bad_names(name: str) -> None:
    with pytest.raises(Error, match="container id cannot be empty|invalid container ID format"):
        check_id(name)


# ---- files ------------------------------------------------------------------------------------------------


def test_a_reader_sees_the_old_or_the_new(folder: Folder) -> None:
    texts = [b"a" * 100_000, b"b" * 90_000]
    folder.write("x.json", texts[0])
    done = threading.Event()

    def write() -> None:
        for number in range(200):
            folder.write("x.json", texts[number % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(folder.read("x.json"))
    writer.join()
    assert seen <= set(texts)


def test_a_write_that_fails_leaves_the_old(folder: Folder) -> None:
    """The disk is full: a limit on the size of files makes write(2) fail in the same place."""
    folder.write("x.json", b"old")
    text = "import resource, signal, sys; sys.path.insert(0, sys.argv[1])\n"
    text += "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
    text += "from ocimk.container.folder import Folder; Folder(sys.argv[2]).write('x.json', b'n' * 100)"
    done = subprocess.run([sys.executable, "-c", text, LIB, folder.path], capture_output=True, text=True)
    assert "file too large" in done.stderr
    assert folder.read("x.json") == b"old"


def test_a_link_in_place_of_a_file_is_not_followed(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("{}")
    os.symlink(tmp_path / "secret", f"{folder.path}/x.json")
    with pytest.raises(OSError):
        folder.read("x.json")


@pytest.mark.parametrize("text", ["", '{"id": "c1"', '{"id": "c1"}', '{"ocimk": {"version": 2}}', "[1]", "\xff"])
def test_a_state_that_is_broken_or_not_ours(folder: Folder, text: str) -> None:
    Path(folder.path, "state.json").write_bytes(text.encode("latin-1"))
    folder.forget()
    with pytest.raises(Error, match="state.json"):
        folder.state  # noqa: B018


def test_commit_changes_what_is_named_and_keeps_the_rest(folder: Folder) -> None:
    folder.commit(pid=5)
    again = Folder(folder.path).state
    assert (again["pid"], again["bundle"], again["status"]) == (5, "/bundle", "creating")


def test_vanish_removes_all_and_is_repeatable(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    os.makedirs(f"{folder.path}/notify/deep")
    os.symlink(tmp_path / "kept", f"{folder.path}/link")
    os.mkfifo(f"{folder.path}/exec.fifo")
    for _ in range(2):
        folder.vanish()
    assert not os.path.exists(folder.path)
    assert (tmp_path / "kept" / "file").exists()


# ---- the lock ---------------------------------------------------------------------------------------------


def test_the_lock_is_for_one(folder: Folder) -> None:
    other = Folder(folder.path)
    assert folder.lock()
    assert other.locked()
    assert not other.lock(wait=False)
    folder.release()
    assert not other.locked()
    assert other.lock(wait=False)
    other.release()


def test_the_lock_ends_with_the_process(folder: Folder) -> None:
    text = "import sys; sys.path.insert(0, sys.argv[1]); from ocimk.container.folder import Folder; "
    text += "Folder(sys.argv[2]).lock(); print(1, flush=True); sys.stdin.read()"
    program = [sys.executable, "-c", text, LIB, folder.path]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert folder.locked()
        holder.kill()
        holder.wait()
    assert not folder.locked()


def test_who_waits_for_the_lock_of_a_container_that_is_deleted_is_told(folder: Folder) -> None:
    folder.lock()
    waiting = Folder(folder.path)
    told: list[BaseException] = []

    def wait() -> None:
        try:
            waiting.lock()
        except Error as problem:
            told.append(problem)

    thread = threading.Thread(target=wait)
    thread.start()
    # Wait until it is blocked in flock(2), which /proc/locks tells.
    inode = os.stat(f"{folder.path}/lock").st_ino
    while not any("->" in line and f":{inode} " in line for line in open_locks()):
        pass
    folder.vanish()
    folder.release()
    thread.join(10)
    assert "container does not exist" in str(told[0])


def open_locks() -> list[str]:
    return Path("/proc/locks").read_text().splitlines()


def test_to_take_the_lock_reads_the_state_anew(folder: Folder) -> None:
    assert folder.state["pid"] == 0
    Folder(folder.path).state  # noqa: B018
    other = Folder(folder.path)
    other.state  # noqa: B018
    other.commit(pid=7)
    folder.lock()
    assert folder.state["pid"] == 7
    folder.release()


# ---- the ledger -------------------------------------------------------------------------------------------

VALUES = ["/a/b", "", "with space", "two\nlines", "back\\slash", "\\n", "\\\\n", "\\", "ends\\", "\n", "ü", "\udcff"]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_comes_back_as_it_was(folder: Folder, value: str) -> None:
    folder.record("oci-mount", "mount", value)
    assert folder.records() == [("oci-mount", "mount", value)]
    assert len(Path(folder.path, "ledger").read_bytes().splitlines()) == 1


def test_a_line_without_its_end_was_never_acted_upon(folder: Folder) -> None:
    folder.record("oci-mount", "mount", "/a")
    with open(f"{folder.path}/ledger", "ab") as file:
        file.write(b"oci-mount mount /b")
    assert folder.records() == [("oci-mount", "mount", "/a")]


def test_a_line_after_a_torn_one_is_not_lost(folder: Folder) -> None:
    """The machine lost power in the middle of a line, and the undoing records or strikes on."""
    Path(folder.path, "ledger").write_bytes(b"oci-mount mount /a\noci-mou")
    folder.strike("oci-none")
    folder.record("oci-cgroup", "cgroup", "/c")
    assert folder.records() == [("oci-mount", "mount", "/a"), ("oci-cgroup", "cgroup", "/c")]


def test_strike_takes_what_was_undone(folder: Folder) -> None:
    for entry in [("a", "x", "1"), ("a", "y", "2"), ("b", "x", "1"), ("a", "x", "3")]:
        folder.record(*entry)
    folder.strike("a", "x", "1")
    assert folder.records("a") == [("a", "y", "2"), ("a", "x", "3")]
    folder.strike("a")
    assert folder.records() == [("b", "x", "1")]


def test_lines_of_two_writers_do_not_mix(folder: Folder) -> None:
    def write(stage: str) -> None:
        for number in range(200):
            folder.record(stage, "k", f"{number} " + stage * 200)

    threads = [threading.Thread(target=write, args=(stage,)) for stage in ("s", "t")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for stage in ("s", "t"):
        assert folder.records(stage) == [(stage, "k", f"{n} " + stage * 200) for n in range(200)]


def test_encode_and_parse_are_inverse() -> None:
    entries = [("s", "k", value) for value in VALUES]
    assert ledger.parse(ledger.encode(entries)) == entries


def test_a_line_that_does_not_fit_is_an_error_and_harms_no_other(folder: Folder) -> None:
    """A full disk takes a part of a line: then nothing may be made, and later lines must be read right."""
    text = "import resource, signal, sys; sys.path.insert(0, sys.argv[1])\n"
    text += "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (30, 30))\n"
    text += "from ocimk.container.folder import Folder; Folder(sys.argv[2]).record('s', 'k', 'v' * 100)"
    done = subprocess.run([sys.executable, "-c", text, LIB, folder.path], capture_output=True, text=True)
    assert "Error: write " in done.stderr
    folder.record("oci-cgroup", "cgroup", "/c")
    assert folder.records() == [("oci-cgroup", "cgroup", "/c")]
