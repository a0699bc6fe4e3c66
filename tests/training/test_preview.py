import torch

from cifar_cnn.data.load import load_train
from cifar_cnn.training.preview import first_batch
from cifar_cnn.training.run import Run
from cifar_cnn.training.step import TrainingStep


def test_the_batch_shown_is_the_one_that_the_first_step_trains_on(small_settings, monkeypatch):
    seen = []
    update = TrainingStep.update

    def remember(self, images, labels):
        seen.append(images.clone())
        update(self, images, labels)

    monkeypatch.setattr(TrainingStep, "update", remember)
    settings = small_settings(recipe="reference")
    Run(settings).trainer.train_epoch()
    assert torch.equal(first_batch(settings, load_train(settings)[0]), seen[0])
