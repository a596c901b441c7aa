import json

import torch

from deepexp import runtime

from ..resumed import SMALL, resume


def provenance(result):
    return json.loads((result.directory / "provenance.json").read_text())


def test_another_number_of_threads_and_other_instructions_are_reported_and_recorded(run, monkeypatch):
    first = run([*SMALL, "threads=auto"])
    assert provenance(first).get("resumed") is None
    resume(first, "epochs=3")
    log = first.directory / "run.log"
    assert [entry["differs"] for entry in provenance(first)["resumed"]] == [[]] and "arithmetic" not in log.read_text()
    other = provenance(first)["choices"]["threads"] + 1
    monkeypatch.setattr(runtime, "default_threads", lambda: other)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "Z80")
    resume(first, "epochs=4")
    said = f"threads: {other} instead of {other - 1}, instructions: Z80 instead of "
    assert said in log.read_text() and f"OMP_NUM_THREADS={other - 1}" in log.read_text()
    last = provenance(first)["resumed"][-1]
    assert {name: last[name] for name in last["differs"]} == {"threads": other, "instructions": "Z80"}


def test_another_device_is_reported_and_recorded(run):
    first = run(SMALL)
    path = first.directory / "provenance.json"
    path.write_text(json.dumps({**provenance(first), "device": "cuda:0 (A Fine Card)", "versions": {"torch": "1.0"}}))
    resume(first, "epochs=3")
    assert "device: cpu (1 thread) instead of cuda:0 (A Fine Card)" in (first.directory / "run.log").read_text()
    assert provenance(first)["resumed"][-1]["differs"] == ["device", "torch"]


def test_provenance_without_versions_is_no_difference(run):
    first = run(SMALL)
    content = provenance(first)
    del content["choices"], content["versions"]
    (first.directory / "provenance.json").write_text(json.dumps(content))
    resume(first, "epochs=3")
    assert "arithmetic" not in (first.directory / "run.log").read_text()
    assert provenance(first)["resumed"][-1]["differs"] == []
