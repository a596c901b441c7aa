"""`deepexp predict`: picture files get the predictions that the same pictures get as test data."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import deepexp
from deepexp import checkpoint
from deepexp.commands import predict as module
from deepexp.commands.eval import main as evaluate
from deepexp.commands.predict import main
from deepexp.data.digits import Digits
from deepexp.errors import InputError
from deepexp.inference import prediction
from deepexp.inference import retest as retesting
from deepexp.inference.retest import retest

WORDS = ["threads=1", "device=cpu", "data.subset=500"]


def write(folder, pictures):
    """(samples, channels, height, width) uint8 as PNG files, in the order of their names."""
    folder.mkdir(parents=True)
    for index, picture in enumerate(pictures):
        array = picture.permute(1, 2, 0).numpy()
        Image.fromarray(array if array.shape[2] == 3 else array[..., 0]).save(folder / f"{index:03}.png")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on 8×8 digits that its model sees at 30×30."""
    outputs = tmp_path_factory.mktemp("outputs")
    words = [*WORDS, "epochs=3", "data.resize=30", "val_fraction=0.1", "ema=0.9", f"output_dir={outputs}"]
    return deepexp.train(words, quiet=True)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    _, test = Digits().load()
    return write(tmp_path_factory.mktemp("pictures") / "digits", test.pictures(torch.arange(30)))


@pytest.fixture
def directory(trained, tmp_path):
    """A copy, for tests that change it."""
    return shutil.copytree(trained.directory, tmp_path / "run")


def answers(capsys, *words):
    assert main([*words, "device=cpu", "json=true"]) == 0
    found = json.loads(capsys.readouterr().out)
    return found, torch.tensor([[share["probability"] for share in one["probabilities"]] for one in found])


@pytest.mark.parametrize("which", ["last", "best"])
def test_predictions_from_python_are_those_of_the_command(trained, digits, capsys, which):
    files = sorted(digits.iterdir())
    found = deepexp.load_run(trained.directory).predict(digits, files[3], checkpoint=which, device="cpu")
    said, probabilities = answers(capsys, f"run={trained.directory}", f"checkpoint={which}", str(digits), str(files[3]))
    assert found.files == tuple(map(str, [*files, files[3]])) == tuple(one["picture"] for one in said)
    assert found.labels == tuple(one["class"] for one in said)
    assert torch.equal(found.probabilities, probabilities)


def test_csv_has_what_json_has(trained, digits, capsys):
    words = [f"run={trained.directory}", str(digits)]
    said, probabilities = answers(capsys, *words)
    assert main([*words, "device=cpu", "csv=true"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["picture"], row["class"]) for row in rows] == [(one["picture"], one["class"]) for one in said]
    assert [float(row["probability"]) for row in rows] == [one["probability"] for one in said]
    assert [[float(row[f"probability of {k}"]) for k in range(10)] for row in rows] == probabilities.tolist()
    with pytest.raises(InputError, match=r"^csv: json=true is given too; choose one$"):
        main([*words, "csv=true", "json=true"])


def test_the_best_model_has_the_weights_of_best_pt(trained, tmp_path):
    best = checkpoint.load(trained.directory / "checkpoints" / "best.pt")
    averages = best["ema"]["averages"]
    weights = deepexp.load_run(trained.directory).best_model.state_dict()
    assert averages and all(torch.equal(weights[name], averages[name]) for name in averages)
    without = deepexp.train([*WORDS, "epochs=1", f"output_dir={tmp_path}"], quiet=True)
    with pytest.raises(InputError, match=r"best\.pt"):
        without.best_model  # noqa: B018
    with pytest.raises(InputError, match=r"best\.pt"):
        without.predict("a.png", checkpoint="best")
    with pytest.raises(InputError, match="of which pictures"):
        without.predict()
    with pytest.raises(InputError, match=r"nowhere\.png: .*No such file"):
        without.predict(tmp_path / "nowhere.png")


def test_predictions_equal_those_of_the_test_and_need_no_data(trained, digits, capsys, monkeypatch):
    expected = retest(trained.directory).probabilities[:30]
    monkeypatch.setattr(retesting, "data_of", None)
    found, probabilities = answers(capsys, f"run={trained.directory}", str(digits))
    assert torch.equal(probabilities, expected)
    assert [one["picture"] for one in found] == [str(digits / f"{index:03}.png") for index in range(30)]
    for one, shares in zip(found, expected, strict=True):
        assert one["class"] == str(int(shares.argmax())) and one["probability"] == shares.max().item()
        assert [share["class"] for share in one["probabilities"]] == [str(index) for index in range(10)]


def test_pictures_in_folders_are_resized_as_in_training(run, tmp_path, capsys):
    """A run on pictures of 3 sizes in class folders, all resized to 24×20."""
    generator = torch.Generator().manual_seed(0)
    for name, size in (("a", (24, 20)), ("b", (30, 40)), ("c", (24, 20))):
        write(tmp_path / "data" / name, torch.randint(0, 256, (12, 3, *size), generator=generator, dtype=torch.uint8))
    words = ["data=image_folder", f"data.root={tmp_path / 'data'}", "data.size=[24,20]", "data.test_fraction=0.5"]
    model = ["model=resnet", "model.depth=8", "epochs=1", "batch_size=6"]
    result = run([*words, *model, f"data.cache={tmp_path / 'cache'}"])
    found = retest(result.directory)
    _, probabilities = answers(capsys, f"run={result.directory}", *found.files)
    torch.testing.assert_close(probabilities, found.probabilities, rtol=0, atol=0)
    for file, image in zip(found.files, found.images, strict=True):
        with Image.open(file) as picture:
            resized = np.asarray(picture.resize((20, 24), Image.Resampling.BILINEAR))
        assert np.array_equal(resized, image.permute(1, 2, 0).numpy())


def test_an_older_checkpoint_takes_the_normalisation_from_the_data(directory, digits, capsys):
    _, expected = answers(capsys, f"run={directory}", str(digits))
    path = directory / "checkpoints" / "last.pt"
    content = checkpoint.load(path)
    del content["pictures"]
    checkpoint.save(path, content)
    _, probabilities = answers(capsys, f"run={directory}", str(digits))
    assert torch.equal(probabilities, expected)
    provenance = json.loads((directory / "provenance.json").read_text())
    (directory / "provenance.json").write_text(json.dumps({**provenance, "data_fingerprint": "00"}))
    with pytest.raises(InputError, match=r"before mean and deviation of the pictures were saved .* not those that"):
        main([f"run={directory}", str(digits), "device=cpu"])


def test_changes_to_pictures_are_reported(trained, digits, tmp_path, capsys, caplog):
    """A digit as in a photograph: in colour, large, and dark on bright paper."""
    with Image.open(digits / "000.png") as picture:
        large = ImageOps.invert(picture).resize((80, 80), Image.Resampling.NEAREST).convert("RGB")
    large.save(tmp_path / "photo.png")
    words = [f"run={trained.directory}", str(tmp_path / "photo.png")]
    _, as_it_is = answers(capsys, *words)
    said = "\n".join(caplog.messages)
    assert "1 of 1 picture resized to 8×8 pixels" in said and "1 of 1 picture read as grey" in said
    assert "1 of 1 picture bright" in said and "invert=true inverts all of them" in said
    caplog.clear()
    _, turned = answers(capsys, *words, "invert=true")
    assert "invert" not in "\n".join(caplog.messages)
    _, expected = answers(capsys, f"run={trained.directory}", str(digits / "000.png"))
    assert (turned - expected).abs().max() < 0.02 < (as_it_is - expected).abs().max()


def test_bright_and_transparent_pictures_are_found_among_others(trained, digits, tmp_path, caplog):
    """One is bright, and one transparent but for its lines, among dark ones."""
    folder = shutil.copytree(digits, tmp_path / "some")
    with Image.open(digits / "000.png") as picture:
        ImageOps.invert(picture).save(folder / "bright.png")
        drawn = Image.new("LA", picture.size)
        drawn.putalpha(picture)
        drawn.save(folder / "drawn.png")
    assert main([f"run={trained.directory}", str(folder), "device=cpu"]) == 0
    said = "\n".join(caplog.messages)
    assert "1 of 32 pictures bright" in said and "1 of 32 pictures transparent in places" in said
    assert "resized" not in said and "grey," not in said


def test_many_files_are_decoded_batch_by_batch(trained, digits, capsys, monkeypatch):
    _, expected = answers(capsys, f"run={trained.directory}", str(digits))
    monkeypatch.setattr(prediction, "_BATCH_SIZE", 7)
    _, probabilities = answers(capsys, f"run={trained.directory}", str(digits))
    torch.testing.assert_close(probabilities, expected)


def test_classes_of_the_same_name_keep_their_probabilities(directory, digits, capsys):
    path = directory / "checkpoints" / "last.pt"
    content = checkpoint.load(path)
    content["pictures"]["classes"] = ["x"] * 10
    checkpoint.save(path, content)
    found, probabilities = answers(capsys, f"run={directory}", str(digits / "000.png"))
    assert probabilities.shape == (1, 10) and probabilities.sum().item() == pytest.approx(1)
    assert found[0]["probability"] == probabilities.max().item()


def test_a_model_of_two_channels_takes_no_picture_files(run, digits, capsys):
    result = run(
        ["data=synthetic", "data.channels=2", "data.train_samples=40", "data.test_samples=20", "batch_size=20"]
    )
    assert evaluate([f"run={result.directory}", "device=cpu", "json=true"]) == 0
    assert json.loads(capsys.readouterr().out)["test_errors"] == result.test_errors
    assert isinstance(result.model, torch.nn.Module)
    with pytest.raises(InputError, match="of 2 channels, and those of files have 1"):
        main([f"run={result.directory}", str(digits), "device=cpu"])


def test_the_table_has_the_most_probable_first(trained, digits, capsys):
    assert main([f"run={trained.directory}", str(digits / "000.png"), str(digits / "001.png"), "device=cpu"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["picture", "class", "probability", "or"]
    _, probabilities = answers(capsys, f"run={trained.directory}", str(digits))
    for row, shares in zip(rows, probabilities, strict=False):
        values, order = shares.sort(descending=True)
        first, second, third = (f"{100 * value:.1f}%" for value in values[:3].tolist())
        assert row.split()[1:] == [str(int(order[0])), first, str(int(order[1])), f"({second}),", *_last(order, third)]
    assert main([f"run={trained.directory}", str(digits), "top=1", "device=cpu"]) == 0
    assert " or" not in capsys.readouterr().out


def _last(order, share):
    return [str(int(order[2])), f"({share})"]


def test_top_may_be_larger_than_the_number_of_classes(trained, digits, capsys):
    assert main([f"run={trained.directory}", str(digits / "000.png"), "top=50", "device=cpu"]) == 0
    assert capsys.readouterr().out.count("%") == 10


def test_a_run_given_as_a_picture_is_refused(trained):
    with pytest.raises(InputError, match=f"is a run and no picture; run={trained.directory} asks its model"):
        main([str(trained.directory)])


def test_checkpoint_best_predicts_with_other_weights(directory, digits, capsys):
    checkpoints = directory / "checkpoints"
    shutil.copy(checkpoints / "previous.pt", checkpoints / "best.pt")
    _, last = answers(capsys, f"run={directory}", str(digits))
    _, best = answers(capsys, f"run={directory}", str(digits), "checkpoint=best")
    assert not torch.equal(best, last)


def test_a_damaged_best_checkpoint_is_refused_and_last_is_advised(directory, digits):
    (directory / "checkpoints" / "best.pt").write_bytes(b"rubbish")
    with pytest.raises(InputError, match=r"best\.pt: is cut short.*; checkpoint=last is allowed$"):
        main([f"run={directory}", str(digits), "checkpoint=best"])


def test_a_config_that_is_cut_short_is_named(directory, digits):
    config = directory / ".hydra" / "config.yaml"
    text = config.read_text()
    config.write_text(text[: text.index("batch_size:")])
    with pytest.raises(InputError) as caught:
        main([f"run={directory}", str(digits)])
    assert f"{config} is damaged: schedule: is missing" in str(caught.value).splitlines()


def test_broken_pictures_are_named_and_nothing_is_predicted(trained, digits, tmp_path, capsys):
    folder = shutil.copytree(digits, tmp_path / "some")
    (folder / "000.png").write_bytes(b"no picture")
    (folder / "001.png").write_bytes((folder / "001.png").read_bytes()[:60])
    with pytest.raises(InputError) as caught:
        main([f"run={trained.directory}", str(folder), "device=cpu"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 2 and f"{folder / '000.png'}: not a picture in a format that is known" in lines
    assert lines[1].startswith(f"{folder / '001.png'}: ")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "predict: of which pictures?"),
        (["run=x"], "predict: of which pictures?"),
        (["run=x", ""], "an empty word: there is nothing of that name"),
        (["run=x", "nowhere.png"], "nowhere.png: there is nothing of that name"),
        (["run=x", "inptu=a.png"], "inptu: there is no such key (did you mean 'input'?)"),
        (["run=x", "top=0", "a.png"], "top: 0 is not allowed"),
        (["empty"], "empty: holds no pictures (picture files end in "),
        (["empty/a.png"], "run: of which run? Give its directory: deepexp predict run="),
    ],
)
def test_a_mistake_is_one_line(words, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    if words[-1:] == ["empty/a.png"]:
        (tmp_path / "empty" / "a.png").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        main(words)
    assert expected in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_picture_may_have_an_equals_sign_in_its_name(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(digits / "000.png", tmp_path / "lr=0.1.png")
    assert module._files(["lr=0.1.png"]) == ["lr=0.1.png"]
