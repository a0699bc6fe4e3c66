import io
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from cifar_cnn import build_model, predict
from cifar_cnn.data.load import load_test
from cifar_cnn.errors import DataError
from cifar_cnn.inference.predict import classify
from cifar_cnn.inference.trained import answer_images, open_trained


def test_it_says_what_evaluation_would_say_of_the_same_images(
    image_folder, untrained_file, small_settings
):
    network, data = open_trained(untrained_file), load_test(small_settings())
    found = predict([image_folder / "test"], untrained_file, top=3).predictions
    assert tuple(image.file for image in found) == data.files
    for row, image in zip(answer_images(network, data.images).exp(), found, strict=True):
        assert not image.resized
        assert [each.name for each in image.top] == [
            network.classes[i] for i in row.argsort(descending=True)
        ]
        probabilities = [each.probability for each in image.top]
        assert probabilities == pytest.approx(row.sort(descending=True).values.tolist())


def test_any_size_and_mode_is_classified(tmp_path, untrained_file):
    sizes = [(1, 1), (32, 32), (300, 7)]
    files = [tmp_path / f"{index}.png" for index in range(3)]
    for mode, size, file in zip(("I;16", "P", "LA"), sizes, files, strict=True):
        Image.new(mode, size).save(file)
    images = predict(files, untrained_file, top=1).predictions
    assert [image.resized for image in images] == [True, False, True]
    assert all(len(image.top) == 1 for image in images)


def test_files_folders_patterns_and_open_files_keep_their_order(
    image_folder, untrained_file, tmp_path
):
    folder = image_folder / "test" / "red"
    (folder / "inner").mkdir()
    shutil.copy(folder / "000.png", folder / "inner" / "004.PNG")
    (folder / "notes.txt").write_text("no image")
    single = folder / "003.png"
    pattern = str(image_folder / "test" / "g*" / "00[12].*")
    stream = io.BytesIO(single.read_bytes())
    named_like_a_pattern = shutil.copy(single, image_folder / "a[1].png")
    given = [single, folder, pattern, named_like_a_pattern, stream]
    found = predict(given, untrained_file).predictions
    names = [Path(image.file).relative_to(image_folder).as_posix() for image in found[:-1]]
    assert names == [
        "test/red/003.png",
        *(f"test/red/00{i}.png" for i in range(4)),
        "test/red/inner/004.PNG",
        "test/green/001.png",
        "test/green/002.png",
        "a[1].png",
    ]
    assert found[-1].file == "-"
    assert found[-1].top == found[0].top


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("none.png", "image .*none.png does not exist"),
        ("*.jpg", "no image matches"),
        ("empty", "has no images"),
        ("text.png", "cannot be read: not a PNG, JPEG, WEBP, BMP or GIF image"),
        ("cut.png", "cut.png cannot be read"),
    ],
)
def test_what_is_no_image_is_named(tmp_path, untrained_file, given, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("hello")
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:1000])
    with pytest.raises(DataError, match=message):
        predict([tmp_path / "whole.png", str(tmp_path / given)], untrained_file)


@pytest.mark.parametrize(("dataset", "name"), [("cifar10", "frog"), ("synthetic", "warm ring")])
def test_a_bare_state_dict_has_the_classes_of_a_data_set(tmp_path, image_folder, dataset, name):
    torch.save(build_model("baseline").state_dict(), tmp_path / "bare.pt")
    overrides = {"dataset": dataset}
    found = predict([image_folder], tmp_path / "bare.pt", top=10, overrides=overrides)
    assert name in [each.name for each in found.predictions[0].top]


def test_it_computes_in_fp32_unless_told_as_exported_files_do(image_folder, untrained_file):
    assert predict([image_folder / "test"], untrained_file).precision == "fp32"
    told = predict([image_folder / "test"], untrained_file, overrides={"precision": "bf16"})
    assert told.precision == "bf16"
    assert told.notes == ("bf16 arithmetic: exported files compute in fp32",)


def test_hidden_files_are_no_images_of_a_folder_or_pattern(image_folder, untrained_file):
    folder = image_folder / "test/red"
    (folder / ".ipynb_checkpoints").mkdir()
    for name in ("._000.png", ".ipynb_checkpoints/000.png", "Thumbs.db"):
        (folder / name).write_bytes(b"no image")
    for given in (folder, f"{folder}/*"):
        assert len(predict([given], untrained_file).predictions) == 4


def test_what_is_transparent_is_said_once(tmp_path, untrained_file):
    for name in "ab":
        Image.new("RGBA", (32, 32)).save(tmp_path / f"{name}.png")
    Image.new("RGB", (32, 32), "white").save(tmp_path / "white.png")
    found = predict([tmp_path], untrained_file)
    assert found.notes == ("laid 2 of 3 images on white: transparent",)
    assert found.predictions[0].top == found.predictions[2].top
    found = predict([tmp_path / "a.png"], untrained_file)
    assert found.notes == ("laid 1 of 1 image on white: transparent",)


@pytest.mark.parametrize(("limit", "most"), [("MOST_AT_ONCE", 2), ("PIXELS_AT_ONCE", 2 * 32 * 32)])
def test_answers_come_before_all_images_are_read(
    image_folder, untrained_file, monkeypatch, limit, most
):
    monkeypatch.setattr(f"cifar_cnn.inference.predict.{limit}", most)
    read = []

    def images():
        for path in sorted((image_folder / "test/red").iterdir()):
            read.append(path.name)
            yield path

    first = next(classify(open_trained(untrained_file), images()))
    assert first.file.endswith("000.png")
    assert read == ["000.png", "001.png"]
