"""The official CIFAR-10 archive, through torchvision."""

from pathlib import Path

import torch

from cifar_cnn.data.dataset import Split
from cifar_cnn.errors import DataError, one_line


def load_cifar10(root: Path, name: str) -> Split:
    """Load the `train` (50,000) or `test` (10,000) images, uint8 (N, 3, 32, 32).

    Downloads the archive into `root` where it is not there yet; its MD5 is checked before anything
    of it is read.

    Raises:
        DataError: the archive is missing or damaged, and cannot be downloaded.
    """
    from torchvision.datasets import CIFAR10  # a second of import that other sources do not need

    parts = (root / CIFAR10.filename, root / CIFAR10.base_folder)
    found = [str(part) for part in parts if part.exists()]
    try:
        archive = CIFAR10(root, train=name == "train", download=True)
    except (OSError, RuntimeError) as error:
        state = f"is damaged or incomplete ({', '.join(found)})" if found else f"is not in {root}"
        raise DataError(
            f"CIFAR-10 {state} and cannot be downloaded ({one_line(error)}): put the whole "
            "archive into --data-dir, or use --dataset folder with images of your own, or "
            "--dataset synthetic, which needs neither files nor network"
        ) from error
    images = torch.from_numpy(archive.data).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.tensor(archive.targets), tuple(archive.classes))
