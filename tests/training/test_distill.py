import math

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from cifar_cnn import build_model, plan_run, train
from cifar_cnn.data.dataset import REFERENCE, Normalization, normalize
from cifar_cnn.data.load import load_test
from cifar_cnn.errors import CheckpointError, ModelError
from cifar_cnn.inference.trained import load_trained
from cifar_cnn.training.distill import distillation_loss, is_code, load_teacher

CLASSES = ("blue", "green", "red")
SIZE = (32, 32)


def test_the_loss_of_a_case_worked_out_by_hand():
    # At T = 2 the teacher's (2 ln 3, 0) is (3/4, 1/4); the student's (0, 0) is (1/2, 1/2).
    teacher = torch.tensor([[2 * math.log(3), 0.0]])
    student = torch.zeros(1, 2)
    expected = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert distillation_loss(student, teacher, 2.0).item() == pytest.approx(expected)


def test_it_is_the_mean_over_the_images_and_nothing_where_both_agree():
    teacher, student = torch.randn(5, 4), torch.randn(5, 4)
    single = [
        distillation_loss(s[None], t[None], 3.0) for s, t in zip(student, teacher, strict=True)
    ]
    torch.testing.assert_close(distillation_loss(student, teacher, 3.0), sum(single) / 5)
    assert abs(distillation_loss(teacher, teacher, 3.0).item()) < 1e-6


def test_logits_and_log_probabilities_give_the_same():
    teacher, student = torch.randn(5, 4), torch.randn(5, 4)
    torch.testing.assert_close(
        distillation_loss(F.log_softmax(student, 1), F.log_softmax(teacher, 1), 4.0),
        distillation_loss(student, teacher, 4.0),
    )


@pytest.mark.parametrize(
    ("teacher", "code"),
    [
        ("runs/a/model.pt", False),
        (r"C:\a\model.pt", False),
        ("a.nets:net", True),
        ("a.py:net", True),
    ],
)
def test_a_teacher_is_code_or_a_file(teacher, code):
    assert is_code(teacher) == code


def test_a_checkpoint_of_a_built_in_network_teaches_with_its_weights(small_settings, tmp_path):
    file = train(small_settings(epochs=1), tmp_path / "run").model_file
    teacher = load_teacher(str(file), CLASSES, SIZE)
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    stored = torch.load(file, weights_only=True)["state_dict"]
    assert all(torch.equal(value, stored[name]) for name, value in teacher.state_dict().items())
    with pytest.raises(CheckpointError, match="other classes"):
        load_teacher(str(file), ("a", "b", "c"), SIZE)


def test_a_function_may_return_the_teacher(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from cifar_cnn import build_model\ndef net(): return build_model('baseline', 3)\n"
    )
    assert not load_teacher(f"{file}:net", CLASSES, SIZE).training
    with pytest.raises(ModelError, match=r"needs \(1, 10\)"):
        load_teacher(f"{file}:net", tuple("abcdefghij"), SIZE)


def test_what_cannot_teach_is_refused(small_settings, tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_teacher(str(tmp_path / "none.pt"), CLASSES, SIZE)
    torch.save(build_model("baseline", 3).state_dict(), tmp_path / "bare.pt")
    with pytest.raises(CheckpointError, match="bare state dict: name a function"):
        load_teacher(str(tmp_path / "bare.pt"), CLASSES, SIZE)
    source = tmp_path / "mine.py"
    source.write_text(
        "from cifar_cnn import build_model\ndef net(): return build_model('baseline', 3)\n"
    )
    own = train(small_settings(epochs=1, model=f"{source}:net"), tmp_path / "own").model_file
    with pytest.raises(CheckpointError, match="to let its code run"):
        load_teacher(str(own), CLASSES, SIZE)


def test_a_checkpoint_gets_images_as_it_was_trained_on_them(small_settings, tmp_path):
    settings = small_settings(epochs=1, normalization="dataset")
    file = train(settings, tmp_path / "run", report=False).model_file
    own = load_trained(file)
    images = load_test(settings).images
    expected = own.model(normalize(images, own.normalization))
    for given in (own.normalization, REFERENCE, Normalization((0.1, 0.9, 0.5), (0.5, 0.1, 0.3))):
        teacher = load_teacher(str(file), CLASSES, SIZE, given)
        torch.testing.assert_close(
            teacher(normalize(images, given)), expected, atol=1e-4, rtol=1e-4
        )


def test_a_resumed_runs_teacher_is_given_what_its_batches_are(
    small_settings, tmp_path, monkeypatch
):
    teacher = train(small_settings(epochs=1), tmp_path / "teacher", report=False).model_file
    settings, run = small_settings(teacher=str(teacher), epochs=1), tmp_path / "run"
    steps = []
    stop = {"listeners": [steps.append], "should_stop": lambda: bool(steps)}
    train(settings, run, report=False, **stop)
    for image in (settings.data_dir / "train" / "red").iterdir():
        Image.new("RGB", SIZE).save(image)
    given = []

    def seen(*arguments):
        given.append(arguments[-1])
        return load_teacher(*arguments)

    monkeypatch.setattr("cifar_cnn.training.run.load_teacher", seen)
    plan = plan_run({}, resume=run)
    model = train(plan.settings, run, checkpoint=plan.checkpoint, report=False).model_file
    assert given == [plan.checkpoint.normalization] == [load_trained(model).normalization]
