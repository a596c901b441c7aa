"""A user's schedule, augmentation, loss or optimizer that breaks its interface is refused before any work."""

import json

import pytest
import torch

import deepexp
from deepexp import build, check, cli, schema
from deepexp.config.compose import compose

MODULE = """
import torch

class Good:
    def __call__(self, step, total_steps):
        return 1.0 if step < 5 else 0.5

    def depends_on_horizon(self):
        return False

    def check(self, total_steps):
        pass

class NoHorizon:
    def __call__(self, step, total_steps):
        return 1.0

    def check(self, total_steps):
        pass

class NotANumber(Good):
    def __call__(self, step, total_steps):
        return float("nan")

class Negative(Good):
    def __call__(self, step, total_steps):
        return -1

class Tensor(Good):
    def __call__(self, step, total_steps):
        return torch.tensor(0.5)

class OneArgument(Good):
    def __call__(self, step):
        return 1.0

class Breaks(Good):
    def __call__(self, step, total_steps):
        return 1 / 0

class Draws:
    def draw(self, samples, shape, generator):
        return {}

class Noise:
    def draw(self, samples, shape, generator):
        return {"noise": torch.randn(samples, *shape, generator=generator)}

    def apply(self, images, draws):
        return images + draws["noise"], None

class Unseeded(Noise):
    def draw(self, samples, shape, generator):
        return {"noise": torch.randn(samples, *shape)}

class OneRow(Noise):
    def draw(self, samples, shape, generator):
        return {"noise": torch.zeros(1)}

class NoDict(Noise):
    def draw(self, samples, shape, generator):
        return torch.zeros(samples)

class Numbers(Noise):
    def draw(self, samples, shape, generator):
        return {"noise": 0.5}

class NoLabels(Noise):
    def apply(self, images, draws):
        return images

class Array(Noise):
    def apply(self, images, draws):
        return images.numpy(), None

class Double(Noise):
    def apply(self, images, draws):
        return images.double(), None

class Fewer(Noise):
    def apply(self, images, draws):
        return images[1:], None

class NotFinite(Noise):
    def apply(self, images, draws):
        return images / 0, None

class Larger(Noise):
    def apply(self, images, draws):
        return images.repeat(1, 1, 2, 2), None

class Fails(Noise):
    def apply(self, images, draws):
        return images + draws["nose"], None

class Mixed(Noise):
    partner, share = torch.tensor([1, 0]), torch.tensor([0.25, 1.0])

    def apply(self, images, draws):
        from deepexp.data.augment import Mix
        return images, Mix(self.partner.repeat(50)[: len(images)], self.share)

class MixedColumn(Mixed):
    share = torch.ones(2, 1)

class MixedNumber(Mixed):
    share = 0.5

class MixedLabels(Mixed):
    partner = torch.tensor([7, 7])

class MixedFloats(Mixed):
    partner = torch.zeros(2)

class MixedTooMuch(Mixed):
    share = torch.tensor([0.5, 3.0])

class Brier:
    def __call__(self, logits, labels):
        return (logits.softmax(1) - torch.nn.functional.one_hot(labels, logits.shape[1])).square().sum(1)

class Doubled(torch.nn.CrossEntropyLoss):
    def __init__(self):
        super().__init__(reduction="none")
        self.register_buffer("factor", torch.tensor(2.0))

    def forward(self, logits, labels):
        return self.factor * super().forward(logits, labels)

class Prior(torch.nn.Module):  # logit adjustment (Menon et al. 2021, equation 10)
    def __init__(self, *, class_counts):
        super().__init__()
        assert min(class_counts) < max(class_counts)  # one may well divide by the difference
        counts = torch.tensor(class_counts, dtype=torch.float32)
        self.register_buffer("log_prior", (counts / counts.sum()).log())

    def forward(self, logits, labels):
        return torch.nn.functional.cross_entropy(logits + self.log_prior, labels, reduction="none")

def cross_entropy(logits, labels, scale):
    return scale * torch.nn.functional.cross_entropy(logits, labels, reduction="none")

class Shifts(Brier):
    def __call__(self, logits, labels):
        logits -= logits.amax(1, keepdim=True).detach()
        return super().__call__(logits, labels)

class Relabels(Brier):
    def __call__(self, logits, labels):
        return super().__call__(logits, labels.clamp_(max=5))

class MeanOfMany(Brier):
    def __call__(self, logits, labels):
        losses = super().__call__(logits, labels)
        return losses.mean() if len(losses) > 2 else losses

class Mean(Brier):
    def __call__(self, logits, labels):
        return super().__call__(logits, labels).mean()

class Column(Brier):
    def __call__(self, logits, labels):
        return super().__call__(logits, labels).unsqueeze(1)

class Counts(Brier):
    def __call__(self, logits, labels):
        return logits.argmax(1) - labels

class Number(Brier):
    def __call__(self, logits, labels):
        return 0.5

class Infinite(Brier):
    def __call__(self, logits, labels):
        return super().__call__(logits, labels) / 0

class Detached(Brier):
    def __call__(self, logits, labels):
        return super().__call__(logits.detach(), labels)

class Unrelated(Brier):
    def __call__(self, logits, labels):
        return torch.zeros(len(labels), requires_grad=True)

class RootOfZero(Brier):
    def __call__(self, logits, labels):
        return (logits * 0).sum(1).sqrt()

class Raises(Brier):
    def __call__(self, logits, labels):
        return logits + labels

class Learns(Doubled):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

class NoLoss:
    pass

class NoOptimizer:
    def __init__(self, params, lr):
        pass

class NoStep(torch.optim.Optimizer):
    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

class Stands(NoStep):
    @torch.no_grad()
    def step(self, closure=None, *more, **options):
        pass

class Closure(NoStep):
    @torch.no_grad()
    def step(self, closure):
        closure()

class NegativeLater(Good):
    def __call__(self, step, total_steps):
        return 1.0 if step < 3 else -0.5
"""
SMALL = ["data.subset=100", "epochs=1", "threads=1", "device=cpu"]
SCHEDULES = ("Good", "NoHorizon", "NotANumber", "Negative", "NegativeLater", "Tensor", "OneArgument", "Breaks")

AUGMENTATIONS = "Noise Unseeded OneRow NoDict Numbers NoLabels Array Double Fewer NotFinite Larger Fails".split()
AUGMENTATIONS += "Mixed MixedColumn MixedNumber MixedLabels MixedFloats MixedTooMuch".split()

LOSSES = "Brier Doubled Prior Shifts Relabels MeanOfMany Mean Column Counts Number Infinite Detached Unrelated".split()
LOSSES += "RootOfZero Raises Learns NoLoss".split()

TORCH_SCHEDULER = "_target_: torch.optim.lr_scheduler.StepLR\nstep_size: 3\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "their_parts.py").write_text(MODULE)
    options = {f"schedule/{name}": name for name in SCHEDULES} | {"augment/Draws": "Draws"}
    options |= {f"augment/{name}": name for name in AUGMENTATIONS}
    options |= {f"loss/{name}": name for name in LOSSES}
    optimizers = ("NoOptimizer", "NoStep", "Stands", "Closure")
    options |= {f"optim/{name}": f"{name}\n_partial_: true\nlr: 0.1" for name in optimizers}
    options |= {"schedule/Partial": "Good\n_partial_: true", "optim/Whole": "Stands\nlr: 0.1"}
    for option, target in options.items():
        path = tmp_path / "conf" / f"{option}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"_target_: their_parts.{target}\n")
    (tmp_path / "conf" / "schedule" / "Torch.yaml").write_text(TORCH_SCHEDULER)
    (tmp_path / "conf" / "loss" / "in_c.yaml").write_text("_target_: torch.hinge_embedding_loss\n_partial_: true\n")
    text = "_target_: their_parts.cross_entropy\nscale: 2.0\n"
    (tmp_path / "conf" / "loss" / "whole.yaml").write_text(text)
    (tmp_path / "conf" / "loss" / "partial.yaml").write_text(f"{text}_partial_: true\n")
    for reduction in ("none", "mean"):
        text = f"_target_: torch.nn.MultiMarginLoss\nmargin: 1.0\nreduction: {reduction}\n"
        (tmp_path / "conf" / "loss" / f"torch_{reduction}.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_schedule_with_a_negative_rate_fails_the_run_at_that_update(here, capsys):
    assert cli.main(["train", "schedule=NegativeLater", "batch_size=10", *SMALL]) == 1
    found = "".join(capsys.readouterr())
    assert "schedule: NegativeLater gives -0.5 for update 4; a number ≥ 0 is needed" in found
    assert "Traceback" not in found


def test_a_correct_schedule_is_trained_with_and_resumed(here):
    assert cli.main(["train", "schedule=Good", *SMALL]) == 0
    (run,) = (here / "outputs" / "mnist_net").iterdir()
    assert cli.main(["train", f"resume={run}", "epochs=2"]) == 0


def test_an_augmentation_may_change_the_size_if_the_model_takes_it(here):
    assert cli.main(["train", "augment=Larger", "model=resnet", "model.depth=8", *SMALL]) == 0


def test_a_correct_mix_passes_the_checks(here):
    assert cli.main(["train", "augment=Mixed", "dry_run=true", *SMALL]) == 0


def test_a_loss_that_gives_one_number_for_many_fails_the_run(here, capsys):
    assert cli.main(["train", "loss=MeanOfMany", *SMALL]) == 1
    assert "the loss gives () for 100 pictures; needed is the loss of each" in "".join(capsys.readouterr())


def test_tensors_of_a_loss_are_on_the_device_of_the_run(here):
    config = schema.typed(compose(["loss=Doubled"]).resolved(), schema.Problems())
    assert build.loss(config, [1] * 10, "meta").factor.device.type == "meta"


def test_a_loss_is_given_how_many_training_samples_each_class_has_also_when_it_is_tested_again(here, capsys):
    words = [*SMALL, "data.subset=105", "loss=Prior"]  # of five classes one sample more
    result = deepexp.train(words, quiet=True)
    assert cli.main(["eval", f"run={result.directory}", "device=cpu", "json=true"]) == 0
    assert json.loads(capsys.readouterr().out)["test_loss"] == pytest.approx(result.test_loss, rel=1e-6)
    config, plan = check.typed_and_planned(compose(words).config)
    counts = build.dataset(config, plan).class_counts
    assert sorted(counts) == [10] * 5 + [11] * 5
    prior = build.loss(config, counts).log_prior
    torch.testing.assert_close(prior, (torch.tensor(counts) / 105).log())
    assert cli.main(["train", "loss=Prior", "+loss.class_counts=[1,2]", *SMALL]) == 2
    assert "loss.class_counts: is given to their_parts.Prior by deepexp" in capsys.readouterr().err


@pytest.mark.parametrize(
    "word", ["augment=Noise", "optim=Stands", "loss=Brier", "loss=Doubled", "loss=torch_none", "loss=partial"]
)
def test_a_correct_part_is_trained_with(here, word):
    assert cli.main(["train", word, *SMALL]) == 0


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("schedule=NoHorizon", "schedule._target_: their_parts.NoHorizon gives a NoHorizon without depends_on_horizon"),
        ("schedule=NotANumber", "schedule: NotANumber gives nan for the first update; a number ≥ 0 is needed, which"),
        ("schedule=Negative", "schedule: Negative gives -1 for the first update"),
        ("schedule=Tensor", "schedule: Tensor gives tensor(0.5000) for the first update"),
        ("schedule=OneArgument", "schedule: OneArgument fails: TypeError: OneArgument.__call__() takes 2 positional"),
        ("schedule=Breaks", "schedule: Breaks fails: their_parts.py:39: ZeroDivisionError: division by zero"),
        ("schedule=Partial", "schedule._partial_: is for optimizers and losses, which are called later; leave it out"),
        ("schedule=Torch", "missing a required argument: 'optimizer' (schedulers of torch do not fit"),
        ("augment=Draws", "augment._target_: their_parts.Draws gives a Draws without apply"),
        (
            "augment=Unseeded",
            "their_parts.Unseeded.draw gives another noise each time, but a run that is resumed within",
        ),
        ("augment=OneRow", "their_parts.OneRow.draw gives noise of shape (1,) for 2 samples; needed is a row"),
        ("augment=NoDict", "their_parts.NoDict.draw gives a Tensor; needed is a dict of tensors"),
        ("augment=Numbers", "their_parts.Numbers.draw gives a dict of float; needed is a dict of tensors"),
        ("augment=NoLabels", "their_parts.NoLabels.apply gives a Tensor; needed are the pictures, and None or"),
        ("augment=Array", "their_parts.Array.apply gives a ndarray for the pictures; needed is a tensor"),
        ("augment=Double", "Double.apply gives torch.float64 of shape (2, 1, 28, 28) for two pictures; needed is"),
        ("augment=Fewer", "Fewer.apply gives torch.float32 of shape (1, 1, 28, 28) for two pictures; needed is"),
        ("augment=NotFinite", "their_parts.NotFinite.apply gives pixels that are not finite for pixels from 0"),
        ("augment=Larger", "Larger.apply makes pictures of 1×56×56 out of 1×28×28, for which the model fails: "),
        ("augment=Fails", "fails for two pictures of 1×28×28: their_parts.py:94: KeyError: 'nose'"),
        ("augment=MixedColumn", "whose share is torch.float32 of shape (2, 1); needed is float32 (2,)"),
        ("augment=MixedNumber", "gives a Mix for two pictures whose share is a float; needed is float32 (2,)"),
        ("augment=MixedLabels", "whose partner is [7, 7]; allowed is from 0 to 1: it is the partner's number in the"),
        ("augment=MixedFloats", "whose partner is torch.float32 of shape (2,); needed is int64 (2,)"),
        ("augment=MixedTooMuch", "whose share is [0.5, 3.0]; allowed is from 0 to 1.0: it is the weight of"),
        (
            "loss=Mean",
            "loss: their_parts.Mean gives torch.float32 of shape () for two pictures; needed is the loss of each",
        ),
        (
            "loss=whole",
            "missing a required argument: 'logits' (_partial_: true in its YAML leaves logits and labels to",
        ),
        ("loss=in_c", "loss._target_: torch.hinge_embedding_loss does not say which arguments it takes; call it in"),
        ("loss=Shifts", "loss: their_parts.Shifts changes its logits or labels in place; errors are counted by them"),
        ("loss=Relabels", "loss: their_parts.Relabels changes its logits or labels in place"),
        ("loss=torch_mean", 'float32 (2,); torch\'s losses do so with reduction: "none"'),
        ("loss=Column", "loss: their_parts.Column gives torch.float32 of shape (2, 1) for two pictures"),
        ("loss=Counts", "loss: their_parts.Counts gives torch.int64 of shape (2,) for two pictures"),
        ("loss=Number", "loss: their_parts.Number gives a float for two pictures"),
        ("loss=Infinite", "loss: their_parts.Infinite gives [inf, inf] for two pictures; needed are finite numbers"),
        ("loss=Detached", "loss: their_parts.Detached has no finite gradient by the logits"),
        ("loss=Unrelated", "loss: their_parts.Unrelated has no finite gradient by the logits"),
        ("loss=RootOfZero", "loss: their_parts.RootOfZero has no finite gradient by the logits"),
        ("loss=Raises", "Raises fails for logits (2, 10) float32 and labels (2,) int64: their_parts.py:"),
        ("loss=Learns", "loss: their_parts.Learns has parameters, which nothing would train; let the model have them"),
        ("loss=NoLoss", "loss._target_: their_parts.NoLoss gives a NoLoss without __call__, which a run calls"),
        ("optim=NoOptimizer", "optim: what it makes is no torch.optim.Optimizer, but a NoOptimizer"),
        ("optim=Whole", "missing a required argument: 'params' (_partial_: true in its YAML leaves"),
        ("optim=NoStep", "optim: NoStep has no step of its own"),
        (
            "optim=Closure",
            "optim: Closure.step: missing a required argument: 'closure', but it is called without arguments",
        ),
    ],
)
def test_a_wrong_part_is_refused_in_one_line(here, capsys, word, expected):
    assert cli.main(["train", word, *SMALL]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line and not (here / "outputs").exists()


@pytest.mark.parametrize("lr", ["-0.1", "inf", "nan", "true", "null", "fast"])
def test_a_wrong_learning_rate_is_refused_for_any_optimizer(here, capsys, lr):
    assert cli.main(["train", "optim=Stands", f"optim.lr={lr}", *SMALL]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("deepexp: optim.lr: ") and line.endswith(" is not allowed; a number ≥ 0")
