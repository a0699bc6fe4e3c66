import hashlib
import pickle
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from cifar_cnn.data.cifar10 import SOURCE
from cifar_cnn.errors import DataError
from cifar_cnn.settings import resolve_settings

PIXELS = np.arange(2 * 3072, dtype=np.int64).reshape(2, 3072).astype(np.uint8)


def read(root, name, loading=None):
    return SOURCE(resolve_settings({"data_dir": root})).read(name, loading)


def test_cifar10_without_archive_and_network_names_the_ways_out(tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(DataError) as caught:
        read(tmp_path / "data", "train")
    message = str(caught.value)
    assert "\n" not in message
    for way in ("--data-dir", "--dataset folder", "--dataset synthetic"):
        assert way in message


def write_cifar10(folder, monkeypatch):
    """Write two test images in the official layout, whose MD5s become torchvision's."""
    contents = {
        "test_batch": {"data": PIXELS, "labels": [3, 7]},
        "batches.meta": {"label_names": [f"class {i}" for i in range(10)]},
    }
    root = folder / CIFAR10.base_folder
    root.mkdir(parents=True)
    sums = {}
    for name, content in contents.items():
        (root / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((root / name).read_bytes()).hexdigest()  # noqa: S324
    monkeypatch.setattr(CIFAR10, "train_list", [])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": sums["batches.meta"]})
    return root


def test_the_official_layout_is_read_after_its_md5_is_checked(tmp_path, monkeypatch):
    root = write_cifar10(tmp_path, monkeypatch)
    split = read(tmp_path, "test")
    assert torch.equal(split.images, torch.from_numpy(PIXELS.reshape(2, 3, 32, 32)))
    assert split.labels.tolist() == [3, 7]
    assert split.classes[7] == "class 7"
    (root / "test_batch").write_bytes(
        b"cos\nsystem\n(S'false'\ntR."
    )  # another MD5: never unpickled
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="cannot be downloaded"):
        read(tmp_path, "test")


@pytest.fixture
def archive_server(tmp_path, monkeypatch):
    """Serve a small archive in place of the official one."""
    source = tmp_path / "served"
    files, packed = write_cifar10(source, monkeypatch), source / CIFAR10.filename
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(files, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(packed.read_bytes()).hexdigest())  # noqa: S324
    handler = partial(SilentHandler, directory=str(source))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("urllib.request._opener", None)  # which keeps the proxies that it has
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{packed.name}")
        yield packed
        server.shutdown()


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_args):
        pass


@pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")  # torchvision's
def test_an_archive_that_is_not_there_is_downloaded_once_and_told(tmp_path, archive_server, capfd):
    told, root = [], tmp_path / "data"
    for _ in range(2):
        split = read(root, "test", lambda *what: told.append(what))
        assert split.labels.tolist() == [3, 7]
    size, target = archive_server.stat().st_size, root / archive_server.name
    assert told == [("downloading", target, done, size) for done in (0, size)]
    assert capfd.readouterr() == ("", "")
    assert {each.name for each in root.iterdir()} == {target.name, "cifar-10-batches-py"}


@pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")
def test_a_download_that_ends_early_leaves_nothing_behind(tmp_path, archive_server):
    whole = archive_server.read_bytes()
    archive_server.write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"not in .*data and cannot .* is not the archive"):
        read(tmp_path / "data", "test")
    assert not list((tmp_path / "data").iterdir())
    (tmp_path / "data" / archive_server.name).write_bytes(whole[:-100])  # as another program may
    archive_server.write_bytes(whole)
    assert len(read(tmp_path / "data", "test")) == 2


@pytest.mark.parametrize("part", ["cifar-10-python.tar.gz", "cifar-10-batches-py/data_batch_1"])
def test_a_damaged_archive_offline_is_called_damaged(tmp_path, monkeypatch, part):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    path = tmp_path / part
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"half of it")
    with pytest.raises(DataError, match=r"CIFAR-10 is damaged or incomplete .*cifar-10") as caught:
        read(tmp_path, "train")
    assert "is not in" not in str(caught.value)
    assert path.read_bytes() == b"half of it"
