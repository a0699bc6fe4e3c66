"""On CIFAR-10 itself, as folders; needs the environment variable CIFAR_CNN_TEST_DATA."""

import os
import time

import pytest

from cifar_cnn import evaluate, resolve_settings, train
from cifar_cnn.data.load import load_train

DATA = os.environ.get("CIFAR_CNN_TEST_DATA")

pytestmark = pytest.mark.skipif(
    not DATA, reason="set CIFAR_CNN_TEST_DATA to a folder with train/<class>/ and test/<class>/"
)


def test_reference_learns_in_two_epochs_of_2000_images(tmp_path):
    settings = resolve_settings(
        {
            "recipe": "reference",
            "dataset": "folder",
            "data_dir": DATA,
            "limit_train": 2000,
            "limit_eval": 1000,
            "epochs": 2,
        }
    )
    result = train(settings, tmp_path / "run")
    assert result.history[-1].eval_samples == 1000
    assert result.history[-1].eval_accuracy > 0.2
    assert result.history[-1].train_loss < 2.2
    again = evaluate(result.model_file, overrides={"limit_eval": 1000})
    assert (again.accuracy, again.loss) == (result.eval.accuracy, result.eval.loss)


def test_the_second_start_takes_under_a_second():
    settings = resolve_settings({"dataset": "folder", "data_dir": DATA})
    load_train(settings)
    started = time.perf_counter()
    split, _ = load_train(settings)
    assert time.perf_counter() - started < 1
    assert split.images.shape == (50_000, 3, 32, 32)
    channel_means = split.images.double().mean(dim=(0, 2, 3)).tolist()
    assert channel_means == pytest.approx([125.3, 122.9, 113.9], abs=0.2)
