"""Which groups of runs are compared, by which test, and the sentences on it, for runs with known results."""

import importlib.util
from itertools import product
from pathlib import Path

import pytest

from deepexp.errors import InputError
from deepexp.report import document, figures, text
from deepexp.report.comparison import MCNEMAR, Comparison
from deepexp.report.make import make

spec = importlib.util.spec_from_file_location("synthetic", Path(__file__).with_name("synthetic.py"))
synthetic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(synthetic)
data_in, make_run, make_sweep = synthetic.data_in, synthetic.make_run, synthetic.make_sweep


def test_other_pictures_of_the_same_classes_are_not_compared(tmp_path):
    """Equal true classes do not suffice: splits drawn by class have them in the same order."""
    for name, seed, fingerprint in [("a", 0, "s0"), ("b", 1, "s1")]:
        make_run(tmp_path / name, {"data.split_seed": seed}, provenance={"data_fingerprint": fingerprint})
    comparisons = make([tmp_path / "a", tmp_path / "b"]).comparisons
    assert not comparisons.made and "data.split_seed differs" in comparisons.not_made[0]


def test_runs_on_changed_data_are_not_compared(tmp_path):
    make_run(tmp_path / "a", **data_in("/a", "aa", **{"optim.lr": 0.1}))
    make_run(tmp_path / "b", **data_in("/a", "bb", **{"optim.lr": 0.01}))
    make_run(tmp_path / "c", **data_in("/a", "cc", **{"optim.lr": 0.1, "data.subset": 100}))
    comparisons = make([tmp_path / "a", tmp_path / "b"]).comparisons
    assert not comparisons.made and "data were changed between the two" in comparisons.not_made[0]
    assert make([tmp_path / "a", tmp_path / "c"]).comparisons.made, "another subset has another fingerprint"


@pytest.mark.parametrize("differing", [{"data.split_seed": 1}, {"data": "noisy"}, {"data.root": "/elsewhere"}])
def test_training_on_other_data_is_compared_if_the_test_samples_are_known_to_be_the_same(tmp_path, differing):
    for name, keys, fingerprint in [("a", {"optim.lr": 0.1}, "aa"), ("b", {"optim.lr": 0.1, **differing}, "bb")]:
        make_run(tmp_path / name, keys, provenance={"data_fingerprint": fingerprint, "test_data_fingerprint": "same"})
    report = make([tmp_path])
    assert report.comparisons.made and report.best is not None
    make_run(tmp_path / "b", keys, provenance={"data_fingerprint": "bb", "test_data_fingerprint": "other"})
    assert not make([tmp_path]).comparisons.made
    for name in "ab":
        make_run(tmp_path / name, provenance={"data_fingerprint": name, "test_data_fingerprint": "same"})
    assert not make([tmp_path]).comparisons.made, "the training data of one setting were changed"


def test_groups_with_common_seeds_are_compared_by_a_paired_t_test(tmp_path):
    rates = {0.1: [0.05, 0.06, 0.055, 0.05], 0.01: [0.2, 0.22, 0.21, 0.2]}
    make_sweep(
        tmp_path / "s", {"optim.lr": [0.01, 0.1], "seed": [0, 1, 2, 3]}, lambda job: rates[job["optim.lr"]][job["seed"]]
    )
    report = make([tmp_path])
    assert [list(row)[:3] for row in report.group_table.rows] == [
        ["0.01", "20.75 ± 0.96%", "4"], ["0.1", "5.38 ± 0.48%", "4"],
    ]  # fmt: skip
    (comparison,) = report.comparisons.made
    assert comparison.test == "paired t"
    sentence, limit = report.comparisons.sentences()
    assert "nothing follows about other test samples" in limit
    assert sentence.startswith("optim.lr=0.1 makes fewer test errors than optim.lr=0.01: 5.38% against 20.75%")
    # Differences 0.15, 0.16, 0.155, 0.15: by hand the mean is 15.375 points, its standard error 0.239, t(3) 3.182.
    assert "mean difference 15.38 points (95% interval 14.61 to 16.14), paired t over 4 seeds, p < 0.001" in sentence
    assert "chosen on the test figures themselves" in report.best


def test_a_seed_of_the_data_that_is_the_runs_own_sets_no_group_apart(tmp_path):
    for lr, seed in product([0.1, 0.01], [0, 1, 2]):
        drawn = {"data_fingerprint": f"drawn with {seed}"}
        keys = {"optim.lr": lr, "seed": seed, "data.noise_seed": seed}
        make_run(tmp_path / f"{lr},{seed}", keys, error_rate=lr + 0.1 * lr * seed, provenance=drawn)
    report = make([tmp_path])
    assert report.varying == ["optim.lr"] and [len(group.runs) for group in report.groups] == [3, 3]
    assert [comparison.test for comparison in report.comparisons.made] == ["paired t"]
    assert any(note.startswith("data.noise_seed: the run's own seed in each") for note in report.notes)
    make_run(tmp_path / "other", {"optim.lr": 0.1, "seed": 0, "data.noise_seed": 1})
    assert make([tmp_path]).varying == ["optim.lr", "data.noise_seed"]


@pytest.mark.parametrize(("gamma", "noted"), [([2.0, 5.0], True), ([2.0, 2.0], False)])
def test_losses_with_other_values_of_a_key_are_other_losses(tmp_path, gamma, noted):
    for lr, value in zip([0.1, 0.01], gamma, strict=True):
        make_run(tmp_path / f"{lr}", {"optim.lr": lr, "loss": "focal", "loss.gamma": value})
    notes = make([tmp_path]).notes
    assert any("training and test losses that cannot be compared" in note for note in notes) == noted


@pytest.mark.parametrize(
    ("p", "words"), [(0.0498, "p = 0.0498"), (0.04999, "p = 0.04999"), (0.0501, "p = 0.050"), (0.0494, "p = 0.049")]
)
def test_a_p_value_is_printed_on_its_side_of_the_limit(p, words):
    # 25 and 42 samples that only one of the two gets wrong: p = 0.0498.
    comparison = Comparison(MCNEMAR, ("a", "b"), (0.1, 0.2), None, (25, 42), 1000, 1, p, p)
    assert comparison.p_in_words == words
    assert ("No difference" not in comparison.sentence(1)) == (p < 0.05)


def test_means_over_some_of_the_seeds_say_so(tmp_path):
    nan = float("nan")
    rates = {0.1: [0.05, 0.06, nan, nan], 0.01: [0.1, 0.105, 0.11, 0.12]}
    make_sweep(
        tmp_path / "s", {"optim.lr": [0.1, 0.01], "seed": [0, 1, 2, 3]}, lambda job: rates[job["optim.lr"]][job["seed"]]
    )
    report = make([tmp_path])
    sentence = report.comparisons.sentences()[0]
    assert "5.50% against 10.25%" in sentence, "10.875% is the mean of all four"
    assert "paired t over 2 of 4 seeds, those with a result in both, p = 0.033" in sentence
    assert "optim.lr=0.1 with 5.50 ± 0.71% (2 of 4 seeds)" in report.best


def test_equal_results_for_each_seed_have_no_interval(tmp_path):
    make_sweep(
        tmp_path / "s", {"clip_grad_norm": [9, 99], "seed": [0, 1, 2]}, lambda job: [0.1, 0.12, 0.11][job["seed"]]
    )
    sentence = make([tmp_path]).comparisons.sentences()[0]
    assert sentence.endswith("11.00% against 11.00%, the same with each of 3 seeds, p = 1.000")


def test_groups_without_two_common_seeds_are_compared_by_welchs_t_test(tmp_path):
    for seed, lr, rate in [(0, 0.1, 0.05), (1, 0.1, 0.06), (1, 0.01, 0.2), (2, 0.01, 0.22), (3, 0.01, 0.24)]:
        make_run(tmp_path / f"run-{lr}-{seed}", {"optim.lr": lr, "seed": seed}, error_rate=rate)
    sentence, limit = make([tmp_path]).comparisons.sentences()
    assert sentence.startswith("optim.lr=0.1 makes fewer test errors than optim.lr=0.01: 5.50% against 22.00%")
    # By hand: the means vary by 0.25 and 1.333 points², 1.258 points together; 2.64 degrees of freedom, t = 3.45.
    assert "mean difference 16.50 points (95% interval 12.16 to 20.84), Welch t over 2 and 3 seeds, of " in sentence
    assert "of which no two have a result in both, p = 0.002" in sentence
    assert "nothing follows about other test samples" in limit


def test_welchs_t_test_needs_the_same_test_samples_for_all_runs(tmp_path):
    for seed, lr in [(0, 0.1), (1, 0.1), (2, 0.01), (3, 0.01)]:
        samples = 100 if seed == 3 else 200
        make_run(tmp_path / f"run-{seed}", {"optim.lr": lr, "seed": seed}, error_rate=lr, samples=samples)
    comparisons = make([tmp_path]).comparisons
    assert comparisons.made == [] and "not tested on the same samples" in comparisons.not_made[0]


def test_the_sentence_names_the_run_compared_with_a_single_one(tmp_path):
    for seed, lr in [(0, 0.1), (2, 0.01), (3, 0.01)]:
        make_run(tmp_path / f"run-{seed}", {"optim.lr": lr, "seed": seed}, error_rate=lr)
    sentence = make([tmp_path]).comparisons.sentences()[0]
    assert sentence.startswith("The run of optim.lr=0.01, seed=2 makes fewer test errors than that of optim.lr=0.1")
    assert "exact McNemar test (no two seeds have a result in both), p < 0.001" in sentence


def test_single_runs_are_compared_by_mcnemars_test(tmp_path):
    make_run(tmp_path / "a", {"optim.lr": 0.1}, error_rate=0.05)
    make_run(tmp_path / "b", {"optim.lr": 0.01}, error_rate=0.1, alone_wrong=[199])
    report = make([tmp_path / "a", tmp_path / "b"])
    first, second = report.comparisons.sentences()
    assert first.startswith("The run of optim.lr=0.1 makes fewer test errors than that of optim.lr=0.01")
    # One run has the first 10 of 200 samples wrong, the other the first 19 and sample 199.
    assert "alone wrong on 0 and 10 of the same 200 test samples" in first
    assert "p = 0.002" in first  # 2 / 2¹⁰
    assert "nothing follows about other runs" in second


def test_the_better_run_comes_first_with_its_own_figures(tmp_path):
    make_run(tmp_path / "a", {"optim.lr": 0.01}, error_rate=0.1, alone_wrong=[199])
    make_run(tmp_path / "b", {"optim.lr": 0.1}, error_rate=0.05)
    sentence, _ = make([tmp_path]).comparisons.sentences()
    assert sentence.startswith(
        "The run of optim.lr=0.1 makes fewer test errors than that of optim.lr=0.01: 5.00% against"
    )
    assert "alone wrong on 0 and 10 of the same 200 test samples" in sentence


def test_no_difference_is_reported(tmp_path):
    make_run(tmp_path / "a", {"optim.lr": 0.1}, error_rate=0.1)
    make_run(tmp_path / "b", {"optim.lr": 0.01}, error_rate=0.105)
    assert make([tmp_path]).comparisons.sentences()[0].startswith("No difference shown between the run of ")


def test_runs_on_different_test_samples_are_not_compared(tmp_path):
    make_run(tmp_path / "a", {"optim.lr": 0.1})
    make_run(tmp_path / "b", {"optim.lr": 0.01}, samples=100)
    make_run(tmp_path / "c", {"data": "mnist"})
    report = make([tmp_path])
    assert report.comparisons.made == []
    assert any("different data, digits and mnist" in line for line in report.comparisons.not_made)
    assert any("not tested on the same samples" in line for line in report.comparisons.not_made)


def test_no_best_is_chosen_by_validation_errors_on_different_data(tmp_path):
    for place, data in enumerate(["mnist", "digits"]):
        for lr in (1, 2, 3):
            words = {"data": data, "optim.lr": lr}
            make_run(
                tmp_path / f"{place}{lr}", words, error_rate=0.1, val_error_rate=(0.3 if place == 0 else 0.2) + lr / 100
            )
    report = make([tmp_path])
    assert report.best is None
    assert report.comparisons.note.startswith("Each group is compared with data=mnist, optim.lr=1, the first of the")


def test_seeds_of_the_only_setting_with_a_result_are_not_compared(tmp_path):
    make_sweep(
        tmp_path / "s", {"optim.lr": [1, 2], "seed": [0, 1]}, lambda job: 0.1 if job["optim.lr"] == 1 else float("nan")
    )
    assert not make([tmp_path]).comparisons.made
    for path in (tmp_path / "s").glob("optim.lr=1,*"):
        path.rename(tmp_path / path.name)
    assert make(sorted(tmp_path.glob("optim.lr=1,*"))).comparisons.made, "where nothing varies but the seed, they are"


def test_p_values_are_corrected_for_the_number_of_comparisons(tmp_path):
    rates = {1: [0.1, 0.11, 0.12, 0.11], 2: [0.12, 0.125, 0.15, 0.12], 3: [0.105, 0.2, 0.21, 0.16]}
    make_sweep(
        tmp_path / "s", {"optim.lr": [1, 2, 3], "seed": [0, 1, 2, 3]}, lambda job: rates[job["optim.lr"]][job["seed"]]
    )
    comparisons = make([tmp_path]).comparisons
    assert [comparison.p for comparison in comparisons.made] == pytest.approx([0.0219, 0.0624, 0.1351], abs=1e-4)
    corrected = [comparison.corrected_p for comparison in comparisons.made]  # times 3, 2 and 1
    assert corrected == pytest.approx([0.0656, 0.1248, 0.1351], abs=1e-4)
    first = comparisons.sentences()[0]
    assert first.startswith("No difference shown") and first.endswith("p = 0.066 (Holm, 3 comparisons)")


def test_up_to_five_groups_are_compared_each_with_each(tmp_path):
    make_sweep(tmp_path / "s", {"optim.lr": [1, 2, 3, 4, 5]}, lambda job: job["optim.lr"] / 20)
    comparisons = make([tmp_path]).comparisons
    assert len(comparisons.made) == 10 and comparisons.note is None


def test_no_best_is_chosen_by_validation_errors_that_some_runs_lack(tmp_path):
    for lr in range(6):
        make_run(tmp_path / str(lr), {"optim.lr": lr + 1}, val_error_rate=None if lr == 3 else 0.1)
    assert "since there is no validation error to choose by" in make([tmp_path]).comparisons.note


def test_many_groups_are_compared_with_one(tmp_path):
    make_sweep(tmp_path / "s", {"optim.lr": [1, 2, 3, 4, 5, 6]}, lambda job: job["optim.lr"] / 20)
    report = make([tmp_path])
    assert len(report.comparisons.made) == 5
    assert "the first of the grid" in report.comparisons.note
    report = make([tmp_path], baseline="optim.lr=3")
    assert all("optim.lr=3" in comparison.labels for comparison in report.comparisons.made)
    with pytest.raises(InputError, match=r"baseline: 'optim\.lr=7' is no group"):
        make([tmp_path], baseline="optim.lr=7")


def test_a_baseline_can_be_given_as_tables_show_it(tmp_path):
    """Tables show a line separator in a folder's name as �, which can be copied."""
    for name, place in [("a", "/odd\u2028name"), ("b", "/plain")]:
        make_run(tmp_path / name, **data_in(place, name))
    told = "data.root=/odd�name"
    report = make([tmp_path])
    assert report.groups[0].label == told and f"{told}: data.root=/plain" in "".join(text.lines(report))
    for baseline in (told, "data.root=/odd\u2028name"):
        assert [steps.baseline for steps in make([tmp_path], baseline=baseline).steps_to] == [told]
    with pytest.raises(InputError, match=f"one of {told}; data.root=/plain$"):
        make([tmp_path], baseline="odd")


@pytest.mark.parametrize(("key", "baseline"), [("epochs", "optim=adam, epochs=1"), ("seed", "optim=adam")])
def test_with_a_baseline_without_a_result_nothing_is_compared(tmp_path, key, baseline):
    """Not even two runs of a group with results."""
    grid = {"optim": ["sgd", "adam"], key: [1, 2]}
    make_sweep(tmp_path / "s", grid, lambda job: float("nan") if job["optim"] == "adam" else job[key] / 10)
    report = make([tmp_path], baseline=baseline)
    note = f"Nothing is compared with the baseline, {baseline}: it has no result."
    assert not report.comparisons.made and report.comparisons.not_made == [note]
    assert note in list(text.lines(report)) and note in text.markdown(report).replace("\\", "")
    html = document.page(report, figures.draw(report)).html()
    assert html.count(note) == 1
