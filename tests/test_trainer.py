"""Whole runs through `deepexp.train`, against plain loops and each other."""

import json

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn import functional as F

from deepexp import checkpoint
from deepexp.data.digits import Digits
from deepexp.errors import InputError, RunFailed

from .resumed import resume
from .same_run import assert_same_run, lines

SMALL = ["epochs=2", "data.subset=300", "data.resize=22", "batch_size=50"]


def step_losses(result) -> list[float]:
    """`train/loss` of every update, as TensorBoard has it."""
    events = EventAccumulator(str(result.directory), size_guidance={"scalars": 0}).Reload()
    points = events.Scalars("train/loss")
    assert [point.step for point in points] == list(range(1, len(points) + 1))
    return [point.value for point in points]


def weights(result) -> dict[str, torch.Tensor]:
    return checkpoint.load(result.directory / "checkpoints" / "last.pt")["model"]


def predictions(result) -> np.ndarray:
    return np.load(result.directory / "predictions.npz")["predicted"]


class LectureNet(nn.Module):
    """The lecture's Net, written down here a second time."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 5)
        self.conv2 = nn.Conv2d(32, 64, 5)
        self.fc1 = nn.Linear(256, 200)
        self.fc2 = nn.Linear(200, 10)

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.conv1(x), 3))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        # `flatten` orders features channel by channel in any memory order.
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def plain_loop(images, labels, *, epochs, memory_format, seed=0, lr=0.1, batch_size=100, max_steps=None):
    """(losses, model): a plain PyTorch loop over uint8 pictures in order, normalised by one mean and deviation."""
    levels = images.double()
    mean, std = levels.mean().float(), levels.std(correction=0).float()
    inputs = images.float().sub_(mean).div_(std).contiguous(memory_format=memory_format)
    torch.manual_seed(seed)
    model = LectureNet().to(memory_format=memory_format)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    losses = []
    for _ in range(epochs):
        for start in range(0, len(inputs), batch_size):
            output = model(inputs[start : start + batch_size])
            loss = F.cross_entropy(output, labels[start : start + batch_size])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) == max_steps:
                return losses, model
    return losses, model


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits_28():
    """The embedded training digits at 28×28, and their labels."""
    train, _ = Digits().load()
    return F.interpolate(train.images, size=(28, 28), mode="bilinear", antialias=True), train.labels


def test_losses_equal_a_plain_loop_bit_for_bit(run, one_thread, digits_28):
    words = ["data.normalise=scalar", "order=sequential", "epochs=2", "log_every=4", "batch_size=40", "seed=3"]
    result = run(words)
    losses, model = plain_loop(*digits_28, epochs=2, memory_format=torch.channels_last, batch_size=40, seed=3)
    assert len(losses) == 72
    assert step_losses(result) == [np.float32(loss) for loss in losses]
    of_epoch = np.average(losses[:36], weights=[40] * 35 + [38])
    assert result.metrics[0]["train_loss"] == pytest.approx(of_epoch, rel=1e-6)
    for mine, theirs in zip(weights(result).values(), model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_losses_in_large_batches_equal_a_plain_loop_but_for_rounding(run, one_thread, digits_28):
    """Over 30 updates, relative 1e-4: the gradient of a convolution's bias is summed in another order."""
    result = run(["data.normalise=scalar", "order=sequential", "epochs=2"])
    losses, _ = plain_loop(*digits_28, epochs=2, memory_format=torch.channels_last)
    assert len(losses) == 30
    assert step_losses(result) == pytest.approx(losses, rel=1e-4)


def test_the_first_losses_equal_a_plain_loop_in_nchw(run, one_thread, digits_28):
    result = run(["data.normalise=scalar", "order=sequential", "max_steps=10"])
    losses, _ = plain_loop(*digits_28, epochs=1, memory_format=torch.contiguous_format, max_steps=10)
    assert step_losses(result) == pytest.approx(losses, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size, steps, off_by", [(40, 300, 0.0), (100, 30, 1e-4)])
def test_losses_of_lecture_mnist_equal_a_plain_loop_on_real_mnist(
    run, one_thread, real_data, batch_size, steps, off_by
):
    """Over 300 updates bit for bit; over 30 relative 1e-4, where the gradient of a bias is summed in another order."""
    words = ["experiment=lecture_mnist", f"data.root={real_data}", "order=sequential", "precision=fp32"]
    result = run([*words, f"max_steps={steps}", f"batch_size={batch_size}"])
    raw = (real_data / "MNIST" / "raw" / "train-images-idx3-ubyte").read_bytes()[16:]
    labels = (real_data / "MNIST" / "raw" / "train-labels-idx1-ubyte").read_bytes()[8:]
    images = torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(-1, 1, 28, 28)
    targets = torch.frombuffer(bytearray(labels), dtype=torch.uint8).long()
    losses, _ = plain_loop(
        images, targets, epochs=1, memory_format=torch.channels_last, max_steps=steps, batch_size=batch_size
    )
    assert step_losses(result) == pytest.approx([float(np.float32(loss)) for loss in losses], rel=off_by, abs=0)


def test_full_batches_with_sum_equal_mean_with_lr_times_samples(run):
    count = 200
    common = ["batch_size=full", f"data.subset={count}", "epochs=4", "order=sequential"]
    by_mean = run([*common, "loss_reduction=mean", "optim.lr=0.05"])
    by_sum = run([*common, "loss_reduction=sum", f"optim.lr={0.05 / count}"])
    assert by_mean.steps == 4
    for mine, theirs in zip(weights(by_mean).values(), weights(by_sum).values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_replicated_samples_scale_the_summed_gradient(run):
    common = ["batch_size=full", "data.subset=50", "epochs=1", "loss_reduction=sum", "order=sequential"]
    once = weights(run([*common, "optim.lr=3e-4"]))
    copied = weights(run([*common, "optim.lr=1e-4", "data.replicate=3"]))
    for mine, theirs in zip(once.values(), copied.values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_the_same_seed_gives_the_same_run_and_another_does_not(run):
    first, again, other = (run([*SMALL, "dropout=0.3", "augment=crop_flip", f"seed={seed}"]) for seed in (1, 1, 2))
    assert step_losses(first) == step_losses(again) != step_losses(other)
    assert np.array_equal(predictions(first), predictions(again))


@pytest.mark.parametrize(
    ("words", "changes"),
    [(["order=sequential"], False), (["order=shuffled"], True), (["order=sequential", "augment=crop_flip"], True)],
    ids=["sequential", "shuffled", "augmented"],
)
def test_each_epoch_draws_its_own_order_and_augmentation(run, words, changes):
    """With a learning rate of zero, nothing else changes the losses."""
    losses = step_losses(run([*SMALL, "optim.lr=0", *words]))
    assert (losses[:6] != losses[6:]) == changes


def test_resident_and_streamed_data_give_the_same_run(run):
    results = [
        run([*SMALL, "augment=mixup", f"data.mode={mode}", "data.workers=2", "val_fraction=0.1"])
        for mode in ("resident", "streamed")
    ]
    assert step_losses(results[0]) == step_losses(results[1])
    assert np.array_equal(predictions(results[0]), predictions(results[1]))


EXTENDED = {
    "adam": ["optim=adam"],
    "momentum, dropout, mixup": ["optim=momentum", "optim.lr=0.02", "dropout=0.2", "augment=mixup"],
    "batch norm, ema": ["batch_norm=true", "ema=0.9"],
    "accumulate, validation": ["accumulate=2", "val_fraction=0.2"],
    "muon": ["optim=muon"],
    "lbfgs": ["optim=lbfgs", "optim.max_iter=3"],
    "streamed, bf16": ["data.mode=streamed", "data.workers=1", "precision=bf16"],
    "cutout, log_every=3": ["augment=cutout", "log_every=3", "optim=adamw"],
    "evaluate_every=2": ["evaluate_every=2"],
}


@pytest.mark.parametrize("options", EXTENDED.values(), ids=EXTENDED.keys())
def test_a_run_ended_by_max_steps_within_an_epoch_is_extended_exactly(run, options):
    common = ["data.subset=120", "data.resize=22", "batch_size=20", "epochs=3", *options]
    whole = run(common, folder="whole")
    cut = run([*common, "max_steps=4"], folder="cut")
    assert cut.steps == 4
    resume(cut, "max_steps=null")
    assert_same_run(cut.directory, whole.directory)


def test_a_finished_run_is_extended_and_keeps_its_old_summary(run):
    whole = run([*SMALL, "epochs=3"], folder="whole")
    shorter = run(SMALL, folder="shorter")
    longer = resume(shorter, "epochs=3")
    assert lines(longer.directory / "metrics.jsonl") == lines(whole.directory / "metrics.jsonl")
    kept = json.loads((longer.directory / "summary.epoch2.json").read_text())
    assert kept["epochs"] == 2 and longer.epochs == 3
    for summary, samples in ((kept, 600), (longer.summary, 900)):
        assert summary["samples_per_second"] * summary["train_seconds"] == pytest.approx(samples, rel=0.01)
    assert kept["train_seconds"] < longer.summary["train_seconds"] < longer.summary["total_seconds"]
    assert longer.metrics[2]["elapsed_seconds"] > longer.metrics[1]["elapsed_seconds"] > kept["train_seconds"]
    assert longer.summary["total_seconds"] > kept["total_seconds"]


def test_max_steps_is_the_horizon_of_the_schedule(run):
    result = run([*SMALL, "schedule=linear", "max_steps=4"])
    assert result.metrics[-1]["lr"] == pytest.approx(0.1 * (1 - 3 / 4))


def test_divergence_names_the_step_and_keeps_the_checkpoint_before(run, tmp_path):
    with pytest.raises(RunFailed, match=r"diverged: the loss is (nan|inf) in step \d+ .*optim\.lr"):
        run([*SMALL, "epochs=20", "optim.lr=1e15", "log_every=2"])
    (directory,) = (tmp_path / "outputs" / "mnist_net").iterdir()
    status = json.loads((directory / "status.json").read_text())
    assert status["status"] == "failed" and "diverged" in status["reason"]
    for path in (directory / "checkpoints").glob("*.pt"):
        assert all(value.isfinite().all() for value in checkpoint.load(path)["model"].values())


def test_weights_of_which_some_are_not_finite_are_not_saved(run, tmp_path):
    words = ["max_steps=1", "loss_reduction=sum", "optim.lr=3e38", "optim.groups=[{pattern: fc*, lr_mult: 0}]"]
    with pytest.raises(RunFailed, match=r"diverged: weights are not finite after step 1 .*; nothing was saved yet"):
        run([*SMALL, *words])
    assert not list(tmp_path.rglob("*.pt"))


def test_early_stop_and_best_checkpoint_depend_on_validation(run):
    result = run([*SMALL, "epochs=30", "val_fraction=0.2", "early_stop=2", "optim.lr=0.2"])
    rates = [line["val_error_rate"] for line in result.metrics]
    best = rates.index(min(rates)) + 1
    assert result.best_epoch == best
    assert result.epochs == min(best + 2, 30)
    saved = checkpoint.load(result.directory / "checkpoints" / "best.pt")
    assert saved["progress"]["epoch"] == best


def test_an_epoch_as_good_as_the_best_is_no_better(run):
    result = run([*SMALL, "epochs=5", "val_fraction=0.2", "early_stop=2", "optim.lr=0"])  # all are equal
    assert (result.best_epoch, result.epochs) == (1, 3)


def test_without_validation_there_is_no_best(run):
    result = run(SMALL)
    assert result.best_epoch is None and result.val_error_rate is None
    assert not (result.directory / "checkpoints" / "best.pt").exists()


def test_max_minutes_ends_a_run(run):
    result = run(["epochs=100000", "data.subset=100", "max_minutes=0.01"])
    assert 0 < result.steps < 100000
    assert result.total_seconds < 20


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (["batch_size=32"], 4),
        (["batch_size=32", "drop_last=true"], 3),
        (["batch_size=32", "accumulate=3"], 2),
        (["batch_size=full"], 1),
        (["batch_size=33", "batch_norm=true"], 3),  # 33 + 33 + 34: the last sample joins the batch before it
    ],
)
def test_the_number_of_updates_in_an_epoch(run, options, steps):
    assert run(["data.subset=100", "epochs=1", *options]).steps == steps


def test_frozen_parameters_do_not_change_until_they_thaw(run):
    options = [*SMALL, "freeze=[{pattern: conv1.*, epochs: 1}]", "optim=adamw", "optim.weight_decay=0.1"]
    torch.manual_seed(0)
    initial = LectureNet().conv1.weight
    one, two = run([*options, "epochs=1"]), run([*options, "epochs=2"])
    assert torch.equal(weights(one)["conv1.weight"], initial)
    assert not torch.equal(weights(two)["conv1.weight"], initial)


def test_running_statistics_of_frozen_layers_do_not_change_until_they_thaw(run):
    options = [*SMALL, "batch_norm=true", "freeze=[{pattern: bn1.*, epochs: 1}]"]
    one, two = (weights(run([*options, f"epochs={epochs}"])) for epochs in (1, 2))
    batches = [[int(found[f"bn{layer}.num_batches_tracked"]) for layer in (1, 2)] for found in (one, two)]
    assert batches == [[0, 6], [6, 12]]
    assert not one["bn1.running_mean"].any() and two["bn1.running_mean"].all()


def test_averaged_weights_are_tested(run):
    """They make other errors than the present ones, which are those of a run without averages."""
    result, present = (run([*SMALL, "optim=adam", *words]) for words in (["ema=0.999"], []))
    saved = checkpoint.load(result.directory / "checkpoints" / "last.pt")
    assert torch.equal(saved["model"]["conv1.weight"], weights(present)["conv1.weight"])
    assert torch.equal(result.model.conv1.weight, saved["ema"]["averages"]["conv1.weight"])
    assert result.test_errors != present.test_errors


def test_the_model_of_a_result_gives_the_saved_predictions(run):
    result = run([*SMALL, "data.resize=28", "batch_norm=true"])
    _, test = Digits().load()
    assert not result.model.training
    images = F.interpolate(test.images, size=(28, 28), mode="bilinear", antialias=True)
    from deepexp.data.dataset import assemble

    data = assemble(Digits(), shape=(1, 28, 28), subset=300, seed=0)
    inputs = images.float().sub(data.mean.view(1, -1, 1, 1)).div(data.std.view(1, -1, 1, 1))
    with torch.inference_mode():
        predicted = result.model(inputs.contiguous(memory_format=torch.channels_last)).argmax(1)
    assert (
        predicted.numpy() == predictions(result)
    ).mean() > 0.995  # another batch size rounds differently: 0.5 % may differ


def test_a_run_leaves_the_global_state_of_torch_as_it_was(run):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    threads = torch.get_num_threads()
    run(SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_early_stop_waits_for_evaluations(run):
    result = run([*SMALL, "epochs=6", "val_fraction=0.2", "early_stop=2", "evaluate_every=3", "optim.lr=0.2"])
    assert result.epochs >= 3
    assert [line["epoch"] for line in result.metrics] == list(range(3, result.epochs + 1, 3))


def test_the_last_epoch_is_evaluated_once_and_counts_for_the_best(run):
    result = run([*SMALL, "epochs=3", "evaluate_every=2", "val_fraction=0.2", "optim.lr=0.2"])
    assert [line["epoch"] for line in result.metrics] == [2, 3]
    best = min(result.metrics, key=lambda line: line["val_error_rate"])
    assert result.best_epoch == best["epoch"]
    events = EventAccumulator(str(result.directory)).Reload()
    assert [point.step for point in events.Scalars("train/epoch_loss")] == [1, 2, 3]


def test_a_run_that_ends_within_an_epoch_keeps_its_best(run):
    result = run([*SMALL, "max_steps=3", "val_fraction=0.2"])
    assert result.best_epoch == 1
    assert (result.directory / "checkpoints" / "best.pt").exists()


def test_the_saved_config_does_not_depend_on_the_working_directory(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run([*SMALL, "data.root=somewhere"])
    saved = (result.directory / ".hydra" / "config.yaml").read_text()
    assert f"root: {tmp_path / 'somewhere'}" in saved


MASKED = """
import torch
from torch import nn

class Masked(nn.Module):
    def __init__(self, *, shape, classes):
        super().__init__()
        self.fc = nn.Linear(shape[1] * shape[2], classes)
        self.register_buffer("mask", torch.full((classes, classes), float("-inf")).triu(1))
        self.register_buffer("least", torch.tensor(float("inf")))
        self.register_buffer("eight_bits", torch.ones(2).to(torch.float8_e4m3fn))

    def forward(self, x):
        logits = self.fc(x.flatten(1))
        if self.training:
            self.least.copy_(torch.minimum(self.least, logits.detach().min()))
        return logits + self.mask.softmax(1)[-1]
"""


@pytest.mark.parametrize("words", [[], ["ema=0.9"]], ids=["weights", "averages"])
def test_buffers_that_are_infinite_from_the_start_are_no_divergence(run, tmp_path, monkeypatch, words):
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "masked.yaml").write_text("_target_: masked_net.Masked\n")
    (tmp_path / "masked_net.py").write_text(MASKED)
    monkeypatch.chdir(tmp_path)
    result = run([*SMALL, "model=masked", *words])
    assert weights(result)["mask"].isinf().any() and weights(result)["least"].isfinite()
    assert result.test_error_rate < 0.9


@pytest.mark.parametrize(
    ("name", "value"),
    [("optimizer", torch.zeros(1)), ("random", torch.zeros(1)), ("readings", torch.zeros(1)), ("piece_size", None)],
)
def test_a_checkpoint_with_a_wrong_value_is_refused(run, name, value):
    result = run(SMALL)
    last = result.directory / "checkpoints" / "last.pt"
    checkpoint.save(last, {**checkpoint.load(last), name: value})
    with pytest.raises(InputError, match="checkpoints: the checkpoint does not fit the config"):
        resume(result, "epochs=3")
