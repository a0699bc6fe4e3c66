import numpy as np
import pytest
import torch

from cifar_cnn.data.load import load_test, load_train, source_of
from cifar_cnn.errors import DataError, SettingsError
from cifar_cnn.settings import SOURCES, resolve_settings


@pytest.mark.parametrize("dataset", SOURCES)
def test_every_source_says_its_classes_and_splits(image_folder, dataset):
    settings = resolve_settings({"dataset": dataset, "data_dir": image_folder})
    assert len(source_of(settings).classes) == (3 if dataset == "folder" else 10)
    assert source_of(settings).splits == ("train", "test")


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


@pytest.mark.parametrize("dataset", ["folder", "synthetic"])
def test_too_many_pixels_for_the_memory_are_refused(image_folder, monkeypatch, dataset):
    allocate = np.empty

    def empty(shape, *arguments, **options):
        if "4096" in str(shape):
            raise MemoryError
        return allocate(shape, *arguments, **options)

    settings = resolve_settings({"dataset": dataset, "data_dir": image_folder, "input_size": 4096})
    monkeypatch.setattr(np, "empty", empty)
    with pytest.raises(DataError, match=r"of 4096x4096 do not fit into memory .* choose a smaller"):
        load_test(settings)
