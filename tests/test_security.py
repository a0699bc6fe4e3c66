"""What the program never does: go to the network unasked, or run what a file brings along."""

import functools
import pickle
import subprocess
import sys
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cifar_cnn.data.cifar10 import load_cifar10
from cifar_cnn.errors import DataError

WATCHED = """
import sys
def watch(event, arguments):
    if event.startswith(("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.")):
        raise RuntimeError(f"went to the network: {event} {arguments}")
    if event in ("os.system", "os.posix_spawn", "pty.spawn"):
        raise RuntimeError(f"started a program: {event} {arguments}")
sys.addaudithook(watch)
from cifar_cnn.cli.main import main
main()
"""


class Harmful:
    def __reduce__(self):
        return print, ("executed",)


def test_training_and_evaluation_need_no_network(image_folder, tmp_path):
    data = ["--dataset", "folder", "--data-dir", str(image_folder)]
    for arguments in (
        ["train", *data, "--epochs", "1", "--name", "a", "--no-report"],
        ["evaluate", "runs/a/model.pt", *data],
    ):
        done = subprocess.run(
            [sys.executable, "-c", WATCHED, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch", "batches.meta"])
def test_an_archive_of_other_content_is_not_unpickled(tmp_path, monkeypatch, capsys, name):
    def no_network(*_arguments, **_options):
        raise OSError("no network")

    monkeypatch.setattr("socket.socket.connect", no_network)
    monkeypatch.setattr("socket.getaddrinfo", no_network)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / name).write_bytes(pickle.dumps({"data": Harmful()}))
    with pytest.raises(DataError, match=r"CIFAR-10 .* and cannot be downloaded"):
        load_cifar10(tmp_path, "train")
    assert "executed" not in capsys.readouterr().out


def test_a_download_of_other_content_is_refused(tmp_path, monkeypatch, capsys):
    served = tmp_path / "served"
    served.mkdir()
    (served / "data_batch_1").write_bytes(pickle.dumps(Harmful()))
    with tarfile.open(served / "cifar-10-python.tar.gz", "w:gz") as file:
        file.add(served / "data_batch_1", "cifar-10-batches-py/data_batch_1")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=served)
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz"
        monkeypatch.setattr("torchvision.datasets.cifar.CIFAR10.url", url)
        with pytest.raises(DataError, match="cannot be downloaded"):
            load_cifar10(tmp_path, "train")
        server.shutdown()
    assert [each.name for each in tmp_path.iterdir()] == ["served"]
    assert not (tmp_path / "cifar-10-batches-py").exists()
    assert "executed" not in capsys.readouterr().out
