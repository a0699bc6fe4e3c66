"""What the program never does: go to the network unasked, or start other programs."""

import subprocess
import sys

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
