"""What `deepexp eval` shows beside the error rate."""

import json
import re

import numpy as np
import pytest

import deepexp
from deepexp.commands.eval import main

WORDS = ["threads=1", "device=cpu", "epochs=1", "data=synthetic", "data.test_samples=130", "data.train_samples=100"]
WORDS += ["data.noise=255", "optim.lr=0.01"]  # so that it has errors


@pytest.fixture(scope="module", params=[4, 10, 12], ids="{} classes".format)
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    return deepexp.train([*WORDS, f"data.classes={request.param}", f"output_dir={folder}"], quiet=True)


def test_the_rates_in_json_are_those_of_its_own_confusions(trained, capsys):
    assert main([f"run={trained.directory}", "device=cpu", "json=true"]) == 0
    answer = json.loads(capsys.readouterr().out)
    cells = np.array(answer["confusion"])
    rates = [1 - cells[index, index] / cells[index].sum() for index in range(len(cells))]
    assert answer["balanced_error_rate"] == pytest.approx(np.mean(rates))
    assert 0 < answer["calibration_error"] < 1
    assert ("top_5_error_rate" in answer) == (len(cells) > 5)
    assert answer.get("top_5_error_rate", 0) < answer["test_error_rate"]


def test_the_text_has_top_5_for_many_classes_and_balanced_where_they_differ_in_size(trained, capsys):
    assert main([f"run={trained.directory}", "device=cpu"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^calibration  \d+\.\d\d%  \(expected calibration error\)$", out, re.M)
    classes = trained.model.fc2.out_features
    assert bool(re.search(r"^top-5 error  \d+\.\d\d%$", out, re.M)) == (classes > 10)
    assert bool(re.search(r"^balanced     \d+\.\d\d%", out, re.M)) == (130 % classes > 0)
