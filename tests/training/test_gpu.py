"""Training and evaluation on a real GPU: what is captured, and that nothing waits."""

import functools
import warnings
from contextlib import contextmanager

import pytest
import torch

import cifar_cnn
from cifar_cnn import plan_run
from cifar_cnn.errors import RunError
from cifar_cnn.inference.trained import predict_log_probabilities
from cifar_cnn.settings import resolve_settings
from cifar_cnn.storage.checkpoint import read_checkpoint
from cifar_cnn.training.distributed import Processes
from cifar_cnn.training.run import Run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")

RECIPES = {
    "tuned": {},
    "reference": {"recipe": "reference"},
    "best": {"recipe": "best", "model": "compact"},
    "adamw": {"optimizer": "adamw", "lr": 0.002},
    "everything": {
        "cutout": 0.5,
        "rotation": 10,
        "color_jitter": 0.2,
        "mixup": 0.3,
        "dropout": 0.1,
        "label_smoothing": 0.1,
    },
}
STEPS = 8

train = functools.partial(cifar_cnn.train, report=False)


@pytest.fixture(autouse=True)
def _choices_kept():
    kept = torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled()
    yield
    torch.backends.cudnn.benchmark = kept[0]
    torch.use_deterministic_algorithms(kept[1])


@contextmanager
def waiting_refused():
    """Have torch raise where it waits for the GPU; that it does not find every place is known."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # says that it is a prototype
        torch.cuda.set_sync_debug_mode("error")
        yield
        torch.cuda.set_sync_debug_mode("default")


def settings(**overrides):
    values = {"dataset": "synthetic", "device": "cuda", "batch_size": 64, "epochs": 2}
    return resolve_settings(values | overrides)


def trained(steps, *, captures, **overrides):
    trainer = Run(settings(**overrides), Processes(torch.device("cuda"))).trainer
    trainer.update.captures = captures
    trainer.model.train()
    for _ in range(steps):
        trainer.learn()
        trainer.index += 1
    assert (trainer.update.replay is not None) == captures, trainer.notes
    return trainer


@pytest.mark.parametrize("overrides", RECIPES.values(), ids=RECIPES)
def test_a_captured_step_is_the_step(overrides):
    exact = {"precision": "fp32", "deterministic": True, **overrides}
    captured, eager = (trained(STEPS, captures=each, **exact) for each in (True, False))
    for name, value in eager.model.state_dict().items():
        assert torch.equal(captured.model.state_dict()[name], value), name
    assert captured.training_step.totals.read() == eager.training_step.totals.read()


@pytest.mark.parametrize("overrides", RECIPES.values(), ids=RECIPES)
def test_no_step_waits_for_the_gpu(overrides):
    trainer = trained(2, captures=True, **overrides)
    with waiting_refused():
        for _ in range(STEPS):
            trainer.learn()
            trainer.index += 1


@pytest.mark.parametrize("name", ["tuned", "best", "adamw"])
def test_a_resumed_run_equals_one_never_stopped(tmp_path, name):
    asked = settings(deterministic=True, limit_train=640, limit_eval=64, **RECIPES[name])
    whole = train(asked, tmp_path / "whole")
    asked_often = []

    def should_stop():
        asked_often.append(True)
        return len(asked_often) > 13

    train(asked, tmp_path / "parts", should_stop=should_stop)
    plan = plan_run({}, resume=tmp_path / "parts")
    assert plan.checkpoint is not None
    assert 0 < plan.checkpoint.training["batch"] < 10
    parts = train(plan.settings, plan.directory, checkpoint=plan.checkpoint)
    ours, theirs = (read_checkpoint(each.model_file).state_dict for each in (parts, whole))
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key


def test_a_diverging_run_says_where(tmp_path):
    with pytest.raises(RunError, match=r"at epoch \d, step \d+, learning rate"):
        train(settings(lr=1e30, scheduler="constant"), tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.pt"))


def test_answers_are_those_of_the_cpu():
    trainer = Run(
        settings(precision="fp32", recipe="best", model="compact"), Processes(torch.device("cuda"))
    ).trainer
    images = trainer.evaluation.images[:200]
    on_gpu = predict_log_probabilities(trainer.model, images, trainer.device, "fp32", tta=True)
    model = trainer.model.cpu()
    on_cpu = predict_log_probabilities(model, images, torch.device("cpu"), "fp32", tta=True)
    torch.testing.assert_close(on_gpu, on_cpu, atol=2e-3, rtol=2e-3)  # TF32 in convolutions
