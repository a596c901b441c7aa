"""The figures of the demonstrations against formulas and torch, and their sentences against the figures."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from deepexp.lecture import (
    batch_norm_statistics,
    batch_vs_loop,
    curvature,
    dropout_mask,
    gradient_descent,
    initialisation,
    loaders,
    parameter_groups,
    residual_block,
    strided_identity,
    surgery,
    update_rules,
)
from deepexp.lecture.demonstration import figures


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (999.4, "999"),
        (999.7, "1,000"),
        (-999.7, "-1,000"),
        (0.00099999, "0.001"),
        (0.0009984, "9.98e-04"),
        (12345, "12,345"),
    ],
)
def test_a_number_just_below_a_power_of_ten_is_rounded_to_it(value, shown):
    assert figures(value) == shown


def test_batch_and_loop_equal_autograd():
    random = torch.Generator().manual_seed(0)
    x, w, dy = (torch.randn(size, generator=random, dtype=torch.float64) for size in ((5, 7), (3, 7), (5, 3)))
    x.requires_grad_()
    w.requires_grad_()
    y = F.linear(x, w)
    y.backward(dy)
    with torch.no_grad():
        for forward in (batch_vs_loop.forward_batch, batch_vs_loop.forward_loop):
            torch.testing.assert_close(forward(x, w), y)
        for backward in (batch_vs_loop.backward_batch, batch_vs_loop.backward_loop):
            torch.testing.assert_close(backward(x, w, dy), (w.grad, x.grad))


def test_batch_and_loop_agree_and_are_timed():
    made = batch_vs_loop.demonstrate(sizes=[1, 16], inputs=20, outputs=30, repeats=2, device="cpu")
    assert 0 <= made.facts["largest_difference"] < 1e-5
    assert "CPU batch vs. loop speed ratio" in made.text
    assert [row[2] for row in made.tables[0].rows] == ["1", "1", "16", "16"]


def test_batch_and_loop_are_plotted_by_size_and_listed_as_given():
    made = batch_vs_loop.demonstrate(sizes=[4, 1, 2], inputs=1, outputs=2, repeats=1, device="cpu")
    assert [row[2] for row in made.tables[0].rows[::2]] == ["4", "1", "2"]
    assert all(list(line.get_xdata()) == [1, 2, 4] for line in made.pictures[0].figure.axes[0].lines)
    assert made.tables[0].caption == "A layer of 1 input and 2 outputs, medians of 1 repeat"


def test_the_legend_of_the_ratios_covers_no_point():
    ratios = {"forward": [2.2, 2.3, 8.3, 3.2], "backward": [1.9, 15.3, 12.4, 6.4]}
    timings = [
        batch_vs_loop.Timing(torch.device(device), samples, direction, 1e-4, 1e-4 * ratio, 0.0)
        for device in ("cpu", "cuda")
        for direction, found in ratios.items()
        for samples, ratio in zip((1, 10, 100, 500), found, strict=True)
    ]
    figure = batch_vs_loop._draw(timings)
    figure.draw_without_rendering()
    right = figure.axes[1]
    assert right.get_legend().get_window_extent().y0 > right.transData.transform((1, 15.3))[1]


def test_the_gradient_is_that_of_autograd():
    inputs, targets = gradient_descent.samples()
    w = torch.randn(10, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    F.cross_entropy(inputs @ w.t(), targets).backward()
    torch.testing.assert_close(gradient_descent.gradient(w.detach(), inputs, targets), w.grad)


def test_figures_of_gradient_descent():
    facts = gradient_descent.demonstrate(scale="quick", batch_sizes=[10, 100, 0]).facts
    assert facts["loss_10"] < facts["loss_100"] < facts["loss_1438"]
    assert facts["sum_against_mean"] < 1e-13
    assert facts["replicated_gradient"] < 1e-12
    assert facts["seen_once"] == 1
    assert facts["seen_with_replacement"] == pytest.approx(1 - 1 / torch.e, abs=0.03)


NO_WORSE, FURTHER_DOWN, JUMPS = "a larger batch is no worse", "are further down here", "the loss jumps"


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"batch_sizes": [1, 10, 0], "epochs": 1}, {NO_WORSE, FURTHER_DOWN, JUMPS}),
        ({"batch_sizes": [10, 100, 0], "lr": 20.0}, {FURTHER_DOWN}),
        ({"batch_sizes": [10, 0], "lr": 100.0, "epochs": 1}, {NO_WORSE}),
        ({"batch_sizes": [1], "lr": 1e-4, "epochs": 1}, set()),
        ({"batch_sizes": [10], "epochs": 1}, set()),
    ],
)
def test_sentences_on_gradient_descent_are_true_of_its_figures(choice, said):
    made = gradient_descent.demonstrate(scale="quick", **choice)
    assert {sentence for sentence in (NO_WORSE, FURTHER_DOWN, JUMPS) if sentence in made.text} == said, made.text


def test_batch_sizes_of_gradient_descent_are_1_to_the_whole_set():
    (sizes, _) = gradient_descent.demonstrate(scale="quick", batch_sizes=[1438, 0], epochs=1).tables
    assert [row[0] for row in sizes.rows] == ["1,438"]
    for wrong in (1439, -1):
        with pytest.raises(ValueError, match=f"^batch_sizes: {wrong} is not allowed; 1 to 1438, .* or 0 for all$"):
            gradient_descent.demonstrate(scale="quick", batch_sizes=[10, wrong])


@pytest.mark.filterwarnings("error")
def test_gradient_descent_that_diverges_can_be_plotted(tmp_path):
    made = gradient_descent.demonstrate(scale="quick", batch_sizes=[100], lr=1e300, epochs=1)
    made.write(tmp_path)
    assert [panel.get_ylim()[1] for panel in made.pictures[0].figure.axes] == [1e100, 1e100]


@pytest.mark.parametrize(("activation", "within"), [("linear", 1.6), ("relu", 2.0)])
def test_variances_follow_the_formulas(activation, within):
    facts = initialisation.demonstrate(scale="quick", activation=activation, depth=6).facts
    assert len(facts) == 6
    assert all(1 <= error < within for error in facts.values()), facts


def test_variances_are_those_of_the_papers():
    assert initialisation.variance("xavier", 30, 50) == pytest.approx(2 / 80)
    assert initialisation.variance("kaiming", 30, 50) == pytest.approx(2 / 30)
    measured = torch.nn.Linear(300, 500).weight.var().item()
    assert initialisation.variance("default", 300, 500) == pytest.approx(measured, rel=0.02)


def test_a_step_that_overflows_has_an_infinite_factor():
    assert curvature.demonstrate(lr=1e308, curvatures=[2]).facts["factor_2"] == math.inf


def test_the_cross_on_a_parabola_is_where_the_path_ends():
    """At ηλ = 2.1 the path has left the picture after 11 of 20 steps."""
    panels = curvature.demonstrate(curvatures=[38, 42]).pictures[0].figure.axes
    assert [any(line.get_marker() == "x" for line in panel.lines) for panel in panels] == [True, False]


def test_variances_far_from_the_formula_are_called_so():
    assert "stray far from the formula" in initialisation.demonstrate(scale="quick", depth=500, width=10).text
    assert "stray" not in initialisation.demonstrate(scale="quick").text


def test_the_sentence_on_tanh_agrees_with_its_table():
    """After twelve layers of tanh, Xavier's variance is 0.05 of the first, where its formula predicts 1."""
    text = " ".join(initialisation.demonstrate(scale="quick", activation="tanh").text.split())
    assert "with tanh for xavier by the formulas" in text and "kaiming stays nearest to 1 here" in text


def test_the_sentence_on_deep_tanh_separates_forward_and_backward():
    """Over a hundred layers, Kaiming's activations stay at 0.5, but its gradients grow to 26,000."""
    text = initialisation.demonstrate(activation="tanh", depth=100, width=64).text
    assert "kaiming stays nearest to 1 here forward, and xavier backward." in text


def test_a_width_of_one_is_refused():
    with pytest.raises(ValueError, match="width: 1 is not allowed; at least 2"):
        initialisation.demonstrate(width=1)


def test_dropout_keeps_the_mean_in_training_and_does_nothing_at_test():
    facts = dropout_mask.demonstrate(scale="quick").facts
    for p in ("0.1", "0.25", "0.5", "0.75"):
        assert facts[f"mean_ratio_{p}"] == pytest.approx(1, abs=0.02)
        assert facts[f"zeroed_{p}"] == pytest.approx(float(p), abs=0.01)
    assert facts["training"] > 0.01
    assert facts["test"] == 0
    with pytest.raises(ValueError, match="dropout"):
        dropout_mask.demonstrate(dropout=1.0)


def test_batch_normalisation_follows_its_formulas():
    facts = batch_norm_statistics.demonstrate().facts
    assert max(facts["formula_error"], facts["test_error"], facts["fold_error"]) < 1e-12
    assert facts["company_training"] > 0.1
    assert facts["company_test"] == 0
    for k, (gamma, beta) in enumerate(((1, 2), (2, 4), (3, 8))):
        assert facts[f"mean_{k}"] == pytest.approx(beta, rel=1e-12)
        assert facts[f"std_{k}"] == pytest.approx(gamma, rel=1e-5)


def test_the_running_mean_is_an_exponential_moving_average():
    layer = batch_norm_statistics._layer(0.1)
    history = batch_norm_statistics.train(layer, 20, 30, torch.Generator().manual_seed(1))
    expected = 0.0
    for batch, running in zip(history.batch, history.running, strict=True):
        expected = 0.9 * expected + 0.1 * batch.item()
        assert running.item() == pytest.approx(expected, rel=1e-12)


def test_the_strided_identity_equals_indexing():
    facts = strided_identity.demonstrate().facts
    assert facts["grid_error"] == facts["zero_channels"] == facts["pad_parameters"] == 0
    assert facts["projection_error"] < 1e-12
    assert facts["kept"] == 0.25
    assert facts["conv_parameters"] == 16 * 32


def test_the_picture_of_the_strided_identity_gives_neither_way_a_channel_of_its_own():
    figure = strided_identity.demonstrate().pictures[0].figure
    figure.draw_without_rendering()
    (arrow,) = (text for axes in figure.axes for text in axes.texts)
    box = arrow.get_window_extent()
    above, below = figure.axes[1].get_window_extent(), figure.axes[7].get_window_extent()
    assert (box.y0 + box.y1) / 2 == pytest.approx((above.y0 + below.y1) / 2, abs=0.1 * figure.dpi)


def test_residual_networks_have_the_papers_parameters_and_begin_near_the_identity():
    facts = residual_block.demonstrate(scale="quick", depth=20).facts
    for depth, millions in residual_block.PAPER_MILLIONS.items():
        assert facts[f"parameters_{depth}"] / 1e6 == pytest.approx(millions, abs=0.005 if depth < 110 else 0.05)
    assert facts["identity_error"] == 0
    assert facts["cosine/plain"] == pytest.approx(residual_block.UNRELATED, abs=0.03)
    assert 0.5 < facts["cosine/residual"] < facts["cosine/residual, last scale 0"]


def test_loaders_give_the_same_batches():
    facts = loaders.demonstrate(scale="quick", workers=[0], epochs=1, device="cpu").facts
    assert facts["same_batches"] == 1
    assert set(facts) == {"same_batches", "speed/resident", "speed/streamed, same process"}


def test_one_loading_process_is_one_worker():
    made = loaders.demonstrate(scale="quick", workers=[1], epochs=1, device="cpu")
    assert "streamed, 1 worker" in {row[0] for row in made.tables[0].rows}


def test_equal_loaders_are_measured_once(monkeypatch):
    opened = []
    usual = loaders.StreamedLoader
    monkeypatch.setattr(loaders, "StreamedLoader", lambda *a, **k: opened.append(usual(*a, **k)) or opened[-1])
    monkeypatch.setattr(loaders, "measure", lambda found, *_: {name: [2.0 - place] for place, name in enumerate(found)})
    made = loaders.demonstrate(scale="quick", workers=[0, 0], epochs=1, device="cpu")
    assert len(opened) == 1
    assert "comes 0.5 times as fast as from “streamed, same process”" in made.text


@pytest.mark.parametrize("fastest", [9.9e5, 1.41e6, 1.74e7])
def test_labels_of_the_speed_axis_do_not_overlap(fastest):
    figure = loaders._draw({"resident": fastest, "streamed, same process": 2e5})
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_no_line_runs_through_the_numbers_beside_the_bars():
    figure = loaders._draw({"resident": 2e6, "streamed, same process": 2e5})
    figure.draw_without_rendering()
    (panel,) = figure.axes
    assert not any(line.get_visible() for line in panel.get_ygridlines())
    gaps = [
        text.get_window_extent().x0 - bar.get_window_extent().x1
        for text, bar in zip(panel.texts, panel.patches, strict=True)
    ]
    assert min(gaps) > 0.03 * figure.dpi and not any(text.get_text().startswith(" ") for text in panel.texts)


def test_muon_on_a_vector_is_called_adamw():
    about = "muon shows here is AdamW at a twentieth"
    assert about in update_rules.demonstrate(steps=2).text
    assert about not in update_rules.demonstrate(optim=["adam"], steps=2).text
    muon, adamw = (update_rules.step_lengths(*of)[1] for of in (("muon", [1.0], 1, 0.02), ("adamw", [1.0], 1, 0.001)))
    assert muon.item() == pytest.approx(adamw.item(), rel=0.1)  # they differ in weight decay


def test_a_single_step_of_each_rule_can_be_seen():
    (panel,) = update_rules.demonstrate(optim=["sgd", "adagrad", "rmsprop"], steps=1).pictures[0].figure.axes
    assert all(list(line.get_xdata()[slice(line.get_markevery()[0], None)]) == [1] for line in panel.lines)


def test_the_limit_of_momentum_is_written_above_the_curves():
    steps = {"momentum": torch.full((50, 2), 10.0), "adadelta": torch.full((50, 2), 0.003)}
    figure = update_rules._draw(steps, dict.fromkeys(steps, 1.0))
    figure.draw_without_rendering()
    (panel,) = figure.axes
    half_a_mark = figure.dpi * 2 / 72
    assert panel.texts[0].get_window_extent().y0 > panel.transData.transform((1, 10))[1] + half_a_mark


def test_each_parameter_group_moves_by_its_own_rule():
    made = parameter_groups.demonstrate(lr=0.1, steps=3)
    with_momentum = 0.1 * (1 + 1.9 + 2.71)
    assert made.facts["fc1.weight"] == pytest.approx(with_momentum, rel=1e-5)
    assert made.facts["conv1.bias"] == pytest.approx(0.1 * with_momentum, rel=1e-5)
    assert made.facts["fc2.bias"] == pytest.approx(0.3, rel=1e-5)
    assert "conv7" in made.text and "the linear biases without momentum" in made.text


@pytest.mark.parametrize("lr", [1e-12, 1e100])
def test_parameter_groups_keep_their_ratios_at_extreme_rates(lr):
    facts = parameter_groups.demonstrate(lr=lr, steps=3).facts
    assert facts["fc1.weight"] / facts["conv1.bias"] == pytest.approx(10, rel=0.01)
    assert facts["fc2.bias"] / lr == pytest.approx(3, rel=0.01)
    with pytest.raises(ValueError, match=r"lr: 1e.* is not allowed; 1e-12 to 1e\+100"):
        parameter_groups.demonstrate(lr=lr**2)


def test_the_pretrained_layer_is_frozen_and_then_moves():
    made = surgery.demonstrate(scale="quick", pretrained=False)
    assert "random here, as asked for" in made.text and "not on this machine" not in made.text
    facts = made.facts
    assert facts["features_epoch_1"] == 0 < facts["features_epoch_2"]
    assert min(facts[f"{part}_epoch_1"] for part in ("converter", "blocks", "fc")) > 0
    assert facts["parameters_features"] == 64 * 3 * 11 * 11 + 64
    assert facts["parameters_fc"] == 650
    assert "three batches of noise" in made.tables[0].caption
    assert facts["pretrained"] == 0
