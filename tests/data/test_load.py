import hashlib
import pickle

import numpy as np
import pytest
import torch

from cifar_cnn.data.cifar10 import load_cifar10
from cifar_cnn.data.load import load_test, load_train
from cifar_cnn.errors import DataError, SettingsError
from cifar_cnn.settings import resolve_settings


def test_limit_and_validation_are_cut_from_the_training_images(small_settings):
    train, val = load_train(small_settings(limit_train=30, val_size=9))
    assert (len(train), len(val)) == (21, 9)
    together = torch.cat([train.images, val.images]).flatten(1)
    pool, none = load_train(small_settings(limit_train=30))
    assert none is None
    assert torch.equal(together.sort(dim=0).values, pool.images.flatten(1).sort(dim=0).values)


def test_the_subset_does_not_depend_on_the_seed(small_settings):
    one = load_train(small_settings(limit_train=9, seed=1))[0]
    two = load_train(small_settings(limit_train=9, seed=2))[0]
    assert torch.equal(one.images, two.images)


def test_a_validation_split_that_takes_everything_is_refused(small_settings):
    with pytest.raises(SettingsError, match="leaves no training image of 36"):
        load_train(small_settings(val_size=36))


@pytest.mark.parametrize("dataset", ["folder", "synthetic"])
def test_another_input_size_resizes_every_source(image_folder, dataset):
    settings = resolve_settings(
        {"dataset": dataset, "data_dir": image_folder, "input_size": "24x40"}
    )
    assert load_test(settings).images.shape[1:] == (3, 24, 40)


def test_cifar10_without_archive_and_network_names_the_ways_out(tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(DataError) as caught:
        load_cifar10(tmp_path / "data", "train")
    message = str(caught.value)
    assert "\n" not in message
    for way in ("--data-dir", "--dataset folder", "--dataset synthetic"):
        assert way in message


def test_the_official_layout_is_read_after_its_md5_is_checked(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    root = tmp_path / CIFAR10.base_folder
    root.mkdir()
    pixels = np.arange(2 * 3072, dtype=np.int64).reshape(2, 3072).astype(np.uint8)
    contents = {
        "test_batch": {"data": pixels, "labels": [3, 7]},
        "batches.meta": {"label_names": [f"class {i}" for i in range(10)]},
    }
    sums = {}
    for name, content in contents.items():
        (root / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((root / name).read_bytes()).hexdigest()  # noqa: S324
    monkeypatch.setattr(CIFAR10, "train_list", [])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    meta = CIFAR10.meta | {"md5": sums["batches.meta"]}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    split = load_cifar10(tmp_path, "test")
    assert torch.equal(split.images, torch.from_numpy(pixels.reshape(2, 3, 32, 32)))
    assert split.labels.tolist() == [3, 7]
    assert split.classes[7] == "class 7"
    (root / "test_batch").write_bytes(
        b"cos\nsystem\n(S'false'\ntR."
    )  # another MD5: never unpickled
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="cannot be downloaded"):
        load_cifar10(tmp_path, "test")


@pytest.mark.parametrize("part", ["cifar-10-python.tar.gz", "cifar-10-batches-py/data_batch_1"])
def test_a_damaged_archive_offline_is_called_damaged(tmp_path, monkeypatch, part):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    path = tmp_path / part
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"half of it")
    with pytest.raises(DataError, match=r"CIFAR-10 is damaged or incomplete .*cifar-10") as caught:
        load_cifar10(tmp_path, "train")
    assert "is not in" not in str(caught.value)
    assert path.read_bytes() == b"half of it"


@pytest.mark.parametrize("dataset", ["folder", "synthetic"])
def test_too_many_pixels_for_the_memory_are_refused(image_folder, monkeypatch, dataset):
    monkeypatch.setattr("cifar_cnn.data.memory.memory", lambda: 1e8)
    settings = resolve_settings({"dataset": dataset, "data_dir": image_folder, "input_size": 4096})
    with pytest.raises(DataError, match=r"of memory, and there are 0\.1 GB: choose a smaller"):
        load_test(settings)
