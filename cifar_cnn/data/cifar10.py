"""The official CIFAR-10 archive, read by torchvision."""

import http.client
import tempfile
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cifar_cnn.data.dataset import Progress, Split
from cifar_cnn.data.layout import OFFICIAL
from cifar_cnn.data.load import FixedSource
from cifar_cnn.errors import DataError, one_line

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

TIMEOUT = 30.0
"""Seconds without a byte after which a download fails."""
AT_ONCE = 1 << 18  # bytes
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
"""In the order of the archive's labels."""


class Cifar10(FixedSource):
    """50,000 training and 10,000 test images of 32×32, in the archive in `data_dir`."""

    classes = CLASSES

    def read(self, name: str, progress: Progress | None) -> Split:
        """Read a split, downloading the archive if it is missing; check its MD5 first."""
        from torchvision.datasets import CIFAR10  # a second of import that other sources avoid

        root = self.settings.data_dir
        if (root / OFFICIAL[1]).is_file():
            raise DataError(
                f"{root} is the archive's own folder: --data-dir {root.parent} is right"
            )
        parts = (root / CIFAR10.filename, root / CIFAR10.base_folder)
        existing = ", ".join(str(part) for part in parts if part.exists())
        try:
            archive = _open(root, progress, is_train=name == "train")
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            state = f"is damaged or incomplete ({existing})" if existing else f"is not in {root}"
            raise DataError(
                f"CIFAR-10 {state} and cannot be downloaded ({one_line(error)}): put the whole "
                "archive into --data-dir, or use --dataset folder with images of your own, or "
                "--dataset synthetic, which needs neither files nor network"
            ) from error
        images = torch.from_numpy(archive.data).permute(0, 3, 1, 2).contiguous()
        return Split(images, torch.tensor(archive.targets), tuple(archive.classes))


SOURCE = Cifar10


def _open(root: Path, progress: Progress | None, *, is_train: bool) -> "CIFAR10":
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity, extract_archive

    try:
        return CIFAR10(root, train=is_train)
    except RuntimeError:  # it is not there, or not whole
        packed = root / CIFAR10.filename
        if not check_integrity(packed, CIFAR10.tgz_md5):
            _download(CIFAR10.url, packed, CIFAR10.tgz_md5, progress)
        extract_archive(packed, root)
        return CIFAR10(root, train=is_train)


def _download(url: str, target: Path, md5: str, progress: Progress | None) -> None:
    """Download the whole file, or leave nothing behind."""
    from torchvision.datasets.utils import check_integrity

    target.parent.mkdir(parents=True, exist_ok=True)
    request = urllib.request.Request(url, headers={"User-Agent": "cifar-cnn"})  # noqa: S310 - https
    with (
        urllib.request.urlopen(request, timeout=TIMEOUT) as response,  # noqa: S310 - https
        tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as scratch,
    ):
        total, done = response.length, 0
        path = Path(scratch) / target.name
        with path.open("wb") as file:
            while data := response.read(AT_ONCE):
                if progress and total:
                    progress("downloading", target, done, total)
                done += file.write(data)
        if progress and total:
            progress("downloading", target, done, total)
        if not check_integrity(path, md5):
            raise RuntimeError(f"the download from {url}, {done:,} bytes, is not the archive")
        path.replace(target)
