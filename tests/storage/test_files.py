import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cifar_cnn.storage.files import leftovers, write_atomically


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_failure_at_any_point_leaves_the_old_file_and_no_temporary(
    tmp_path, failing_disk, number
):
    path = tmp_path / "file"
    for point in failing_disk.POINTS:
        path.write_bytes(b"old")
        failing_disk.fail(point, number)
        with pytest.raises(OSError, match=os.strerror(number)):
            write_atomically(path, b"new")
        after_the_rename = point.endswith("folder")
        assert path.read_bytes() == (b"new" if after_the_rename else b"old")
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path, failing_disk, number):
    failing_disk.fail("fsync_folder", number)
    write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
@pytest.mark.parametrize("old", [b"old", None])
def test_a_link_stays_and_what_it_points_to_is_written(tmp_path, old):
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    target, link = tmp_path / "there" / "file", tmp_path / "here" / "link"
    if old is not None:
        target.write_bytes(old)
    link.symlink_to("../there/file")
    write_atomically(link, b"new")
    assert link.readlink() == Path("../there/file")
    assert target.read_bytes() == b"new"
    assert sorted(tmp_path.rglob("*")) == sorted([*tmp_path.iterdir(), target, link])


@pytest.mark.skipif(os.name == "nt", reason="needs setrlimit")
def test_a_write_that_the_kernel_cuts_off_leaves_the_old_file(tmp_path):
    import resource

    path = tmp_path / "file"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            write_atomically(path, bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_what_a_killed_process_left_is_found_and_nothing_else(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from cifar_cnn.storage.files import write_atomically\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomically(Path(sys.argv[1]), b'new')\n"
    )
    path = tmp_path / "file"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", code, path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    others = {tmp_path / name for name in (".movie.mp4.part", ".file.part", ".other.12.part")}
    for other in others:
        other.touch()
    (left,) = leftovers(tmp_path, ["file"])
    assert {*tmp_path.iterdir()} == {path, left, *others}
