import pytest

from cifar_cnn import plan_run, train
from cifar_cnn.training.record import read_run

pytest.importorskip("tensorboard", reason="needs the extra `tensorboard`")


def read_scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard's own imports
def test_the_events_hold_what_metrics_csv_holds_also_after_going_on(small_settings, tmp_path):
    run = tmp_path / "run"
    train(small_settings(epochs=1), run, report=False, tensorboard=True)
    plan = plan_run({"epochs": 3, "scheduler": "onecycle"}, resume=run)
    train(plan.settings, run, checkpoint=plan.checkpoint, report=False, tensorboard=True)
    rows = read_run(run).history
    assert len(rows) == 3
    assert len(list((run / "tensorboard").iterdir())) == 1
    scalars = read_scalars(run / "tensorboard")
    expected = {
        "loss/train": [row.train_loss for row in rows],
        "loss/test": [row.eval_loss for row in rows],
        "accuracy/train": [row.train_accuracy for row in rows],
        "accuracy/test": [row.eval_accuracy for row in rows],
        "lr": [row.lr for row in rows],
        "images_per_second": [row.images_per_second for row in rows],
    }
    assert set(scalars) == set(expected)
    for tag, values in expected.items():
        assert [step for step, _ in scalars[tag]] == [row.step for row in rows]
        assert [value for _, value in scalars[tag]] == pytest.approx(values)
