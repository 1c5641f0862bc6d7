"""The folder store keeps a store's promises: whole, once, durable, inside its folder."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.media.making import objects, temporaries
from tests.processes import PROCESSES
from vsa.errors import (
    BadRequest,
    DeleteRefused,
    MediaConflict,
    MediaDamaged,
    MediaUnusable,
    NoMedia,
    ObjectMissing,
)
from vsa.media.folder import FolderStore
from vsa.ranges import ByteRange

PACK = f"runs/r1/packs/{'ab' * 16}.pack"


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore.make(tmp_path / "media")


def test_the_parts_of_an_object_are_stored_as_one(store):
    store.create(PACK, [b"abc", bytearray(b"def"), memoryview(b"ghi")])
    assert store.read(PACK) == b"abcdefghi"
    assert store.read(PACK, ByteRange(2, 5)) == b"cde"
    assert store.size(PACK) == 9
    assert temporaries(store.root) == []


def test_an_existing_object_is_refused_and_kept(store):
    store.create(PACK, [b"first"])
    with pytest.raises(MediaConflict, match="exists already"):
        store.create(PACK, [b"second"])
    assert store.read(PACK) == b"first"
    assert temporaries(store.root) == []


def test_what_is_not_there_is_missing_and_what_is_short_is_damaged(store):
    with pytest.raises(ObjectMissing, match=PACK):
        store.read(PACK)
    with pytest.raises(ObjectMissing):
        store.size(PACK)
    store.create(PACK, [b"12345"])
    with pytest.raises(MediaDamaged, match="has 5 bytes, but bytes 3 to 6"):
        store.read(PACK, ByteRange(3, 6))
    with pytest.raises(MediaDamaged, match="at most 4"):
        store.read(PACK, limit=4)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../up",
        "runs/../../up",
        "runs//x",
        "a/",
        ".tmp/x",
        "A",
        "a\0b",
        "a\nb",
        "a\\b",
        "é",
        "x" * 129,
    ],
)
def test_no_name_leads_out_of_the_folder(store, name):
    for call in (lambda: store.create(name, [b""]), lambda: store.read(name), lambda: store.size(name)):
        with pytest.raises(BadRequest):
            call()


@settings(deadline=None)
@given(st.text(alphabet="ab./-_0\0\n~", max_size=20))
def test_whatever_name_is_accepted_stays_inside(name):
    from vsa.media import layout

    try:
        layout.require_name(name)
    except BadRequest:
        return
    inside = os.path.normpath(f"/media/{name}")
    assert inside == f"/media/{name}"


def test_names_lists_objects_by_prefix_and_nothing_else(store):
    for name in ("log/000000000000", "log/000000000001", "runs/r1/intent.json"):
        store.create(name, [b"x"])
    (store.root / ".tmp" / "unfinished").write_bytes(b"")
    assert list(store.names("log/")) == ["log/000000000000", "log/000000000001"]
    assert list(store.names("log/00000000000")) == ["log/000000000000", "log/000000000001"]
    assert set(store.names("")) == objects(store.root)
    assert list(store.names("absent/")) == []


def test_links_and_pipes_in_the_folder_are_not_followed(store, tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    (store.root / "link").symlink_to(outside)
    os.mkfifo(store.root / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(MediaDamaged):
            store.read(name)


def test_an_own_success_reported_as_refusal_is_a_success(tmp_path):
    class RepeatingStore(FolderStore):
        """Like NFS after a lost answer: the request worked, its repetition is refused."""

        def _link(self, temporary: str, name: str) -> None:
            super()._link(temporary, name)
            super()._link(temporary, name)

    store = RepeatingStore.make(tmp_path / "media")
    store.create(PACK, [b"mine"])
    assert store.read(PACK) == b"mine"
    with pytest.raises(MediaConflict):
        store.create(PACK, [b"other"])


def test_a_file_system_that_replaces_is_refused_for_writing(tmp_path):
    class ReplacingStore(FolderStore):
        def _link(self, temporary: str, name: str) -> None:
            shutil.copyfile(self.root / temporary, self.root / name)

    (tmp_path / "media").mkdir()
    store = ReplacingStore(tmp_path / "media")
    with pytest.raises(MediaUnusable, match="exactly one must win"):
        store.prepare_for_writing()
    assert temporaries(store.root) == []


def test_unfinished_files_go_after_a_day_and_not_before(store):
    old, young = store.root / ".tmp" / "old", store.root / ".tmp" / "young"
    old.write_bytes(b"x")
    young.write_bytes(b"x")
    yesterday = time.time() - 25 * 3600
    os.utime(old, (yesterday, yesterday))
    store.prepare_for_writing()
    assert temporaries(store.root) == ["young"]


def test_a_deletion_does_not_race_with_a_create_beside_it(store):
    """Folders stay, however empty: one may be between being made and being used by another writer."""
    names = [f"runs/r1/packs/{number:032x}.pack" for number in range(60)]

    def create_and_delete(name: str) -> None:
        store.create(name, [b"x"])
        store.delete(name)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(create_and_delete, names))
    assert objects(store.root) == set()
    assert (store.root / "runs/r1/packs").is_dir()


@pytest.mark.tools
@pytest.mark.skipif(shutil.which("chattr") is None, reason="needs chattr to make a file immutable")
def test_an_immutable_file_is_kept_and_said_to_be(store):
    store.create(PACK, [b"x"])
    if subprocess.run(["chattr", "+i", store.root / PACK], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to make files immutable")
    try:
        with pytest.raises(DeleteRefused, match="not permitted"):
            store.delete(PACK)
        assert store.read(PACK) == b"x"
    finally:
        subprocess.run(["chattr", "-i", store.root / PACK], check=True)
    store.delete(PACK)


def test_of_many_threads_exactly_one_creates(store):
    names = [f"log/{number:012}" for number in range(20)]

    def create_all(writer: int) -> int:
        return sum(_creates(store, name, writer) for name in names)

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(create_all, range(8))) == len(names)
    assert temporaries(store.root) == []


def _creates(store: FolderStore, name: str, writer: int) -> bool:
    try:
        store.create(name, [b"%d" % writer])
    except MediaConflict:
        return False
    return True


def _create_in_process(root: Path, writer: int, start, won) -> None:
    store = FolderStore(root)
    start.wait()
    won.put([name for number in range(25) if _creates(store, name := f"log/{number:012}", writer)])


def test_of_many_processes_exactly_one_creates(store):
    start, won = PROCESSES.Barrier(4), PROCESSES.Queue()
    processes = [
        PROCESSES.Process(target=_create_in_process, args=(store.root, writer, start, won))
        for writer in range(4)
    ]
    for process in processes:
        process.start()
    names = [name for _ in processes for name in won.get(timeout=60)]
    for process in processes:
        process.join()
    assert sorted(names) == [f"log/{number:012}" for number in range(25)]


def test_a_file_size_limit_leaves_nothing_behind(store):
    """The kernel refuses the write in the middle of the object, as a quota does."""
    process = subprocess.run(
        [sys.executable, "-c", _WRITE_UNDER_LIMIT, str(store.root), PACK],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.stdout == "refused\n", process.stderr
    assert objects(store.root) == set()
    assert temporaries(store.root) == []


_WRITE_UNDER_LIMIT = """
import resource, signal, sys
from pathlib import Path
from vsa.errors import MediaUnusable
from vsa.media.folder import FolderStore
store = FolderStore(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    store.create(sys.argv[2], [bytes(50_000), bytes(50_000)])
except MediaUnusable:
    print("refused")
"""


@pytest.fixture
def small_file_system(tmp_path):
    """A mounted file system of one mebibyte, and a function that makes it read-only."""
    root = tmp_path / "small"
    root.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", root], check=False).returncode
    ):
        pytest.skip("needs the right to mount a file system")
    yield root, lambda: subprocess.run(["mount", "-o", "remount,ro", root], check=True)
    subprocess.run(["umount", "-l", root], check=True)


@pytest.mark.tools
def test_a_full_file_system_is_named_and_stays_sound(small_file_system):
    store = FolderStore.make(small_file_system[0])
    store.create(PACK, [b"before"])
    with pytest.raises(MediaUnusable, match="full: free some space"):
        store.create("log/000000000000", [bytes(2 << 20)])
    assert objects(store.root) == {PACK}
    assert temporaries(store.root) == []
    store.create("log/000000000000", [b"small"])


@pytest.mark.tools
def test_a_read_only_file_system_serves_readers_only(small_file_system):
    root, make_read_only = small_file_system
    FolderStore.make(root).create(PACK, [b"kept"])
    make_read_only()
    store = FolderStore(root)
    assert store.read(PACK) == b"kept"
    with pytest.raises(MediaUnusable, match="read-only"):
        store.create("log/000000000000", [b"x"])
    with pytest.raises(DeleteRefused, match="Read-only"):
        store.delete(PACK)
    with pytest.raises(MediaUnusable, match="read-only"):
        store.prepare_for_writing()


@pytest.mark.tools
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to see the order of system calls")
def test_contents_are_durable_before_the_name_and_the_name_before_the_return(tmp_path):
    """A power cut after any call must find no name without its contents, and no acknowledged name missing."""
    code = (
        "import sys; from pathlib import Path; from vsa.media.folder import FolderStore; "
        f"FolderStore(Path(sys.argv[1])).create('{PACK}', [b'x'])"
    )
    (tmp_path / "media").mkdir()
    trace = tmp_path / "trace"
    subprocess.run(
        [
            *("strace", "-f", "-y", "-o", trace, "-e", "trace=fsync,linkat,link,mkdirat,unlinkat"),
            *(sys.executable, "-c", code, tmp_path / "media"),
        ],
        check=True,
    )
    media = str(tmp_path / "media")
    calls = [line.split(maxsplit=1)[1] for line in trace.read_text().splitlines() if media in line]
    steps = [_step(call, media) for call in calls if " = 0" in call]
    assert steps == [
        "mkdir .tmp",
        "sync temporary",
        "mkdir runs",
        "sync .",
        "mkdir runs/r1",
        "sync runs",
        "mkdir runs/r1/packs",
        "sync runs/r1",
        "link",
        "unlink temporary",
        "sync runs/r1/packs",
    ]


def _step(call: str, media: str) -> str:
    if call.startswith("mkdirat"):
        return "mkdir " + call.split('"')[1]
    if call.startswith("fsync"):
        path = call.partition("<")[2].partition(">")[0].removeprefix(media).lstrip("/")
        return "sync temporary" if path.startswith(".tmp/") else f"sync {path or '.'}"
    return "link" if call.startswith("link") else "unlink temporary"


_CREATE_FOR_EVER = """
import hashlib, os, sys
from pathlib import Path
from vsa.media.folder import FolderStore
store = FolderStore(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    data = os.urandom(200_000)
    name = hashlib.sha256(data).hexdigest()[:32]
    store.create(f"runs/r1/packs/{name}.pack", [data[:70_000], data[70_000:]])
    print("stored", flush=True)
"""


def test_a_killed_writer_leaves_only_whole_objects(store):
    choose = random.Random(20260301)
    for life in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", _CREATE_FOR_EVER, str(store.root)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        # Every second life has stored something, however busy the machine is.
        for _ in range(1 + life % 2):
            process.stdout.readline()
        time.sleep(choose.uniform(0.01, 0.08))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    names = list(store.names("runs/"))
    assert names
    for name in names:
        assert hashlib.sha256(store.read(name)).hexdigest()[:32] in name


def test_media_is_made_only_in_a_folder_of_its_own(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "letter.txt").write_text("x")
    with pytest.raises(MediaConflict, match=r"letter\.txt"):
        FolderStore.make(tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["letter.txt"]
    with pytest.raises(MediaUnusable, match="cannot be made"):
        FolderStore.make(tmp_path / "data" / "letter.txt" / "below")
    FolderStore.make(tmp_path / "new" / "deep")


def test_a_folder_that_is_not_there_is_no_media(tmp_path):
    with pytest.raises(NoMedia):
        FolderStore(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    with pytest.raises(NoMedia):
        FolderStore(tmp_path / "file")


def test_a_replaced_folder_is_not_mistaken_for_the_opened_one(store):
    """As when media is unmounted and another mounted in its place while a backup runs."""
    store.create(PACK, [b"opened"])
    moved = store.root.rename(store.root.with_name("moved"))
    store.root.mkdir()
    store.create("log/000000000000", [b"x"])
    assert objects(store.root) == set()
    assert "log/000000000000" in objects(moved)
    assert store.read(PACK) == b"opened"
