"""What is tried out of the user's own code leaves that of the run as it is."""

from deepexp import checkpoint, cli

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, *, shape, classes):
        super().__init__()
        self.norm = nn.BatchNorm2d(shape[0])
        self.fc = nn.Linear(shape[0] * shape[1] * shape[2], classes)
        self.first = lambda x: self.norm(x).flatten(1)  # of this object, also in a deep copy

    def forward(self, x):
        return self.fc(self.first(x))
"""


def test_a_trial_for_probabilities_does_not_change_the_model_of_the_run(tmp_path, monkeypatch):
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "closure.yaml").write_text("_target_: with_closure.Net\n")
    (tmp_path / "with_closure.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    words = ["data.subset=100", "batch_size=100", "epochs=1", "threads=1", "device=cpu"]
    assert cli.main(["train", "model=closure", *words]) == 0
    (run,) = (tmp_path / "outputs" / "closure").iterdir()
    assert checkpoint.load(run / "checkpoints" / "last.pt")["model"]["norm.num_batches_tracked"] == 1
