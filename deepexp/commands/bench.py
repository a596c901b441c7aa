"""usage: deepexp bench step [KEY=VALUE …]

Measure how fast a training step of this model and config is here and now, against the plain PyTorch loop: float tensors
in memory, NCHW, the loss fetched after each step, as many threads. Each runs in a process of its own, and they take
turns; also measured are an epoch with its test, and the peak memory of both processes. Nothing is written.

  deepexp bench step                                  the default model on the default data
  deepexp bench step data=mnist batch_size=10         any config that `deepexp train` takes
  deepexp bench step data=mnist json=true             every figure, for programs

  rounds=7            turns that each has at the step
  seconds=1.0         length of a turn at the step
  epoch_rounds=null   turns at a whole epoch; null: 3, or none if they would take minutes
  json=false          print JSON instead of a table
"""

import json
from collections.abc import Sequence

from deepexp.bench import options, step
from deepexp.errors import InputError
from deepexp.suggest import did_you_mean

BENCHMARKS = {"step": step.run}


def main(argv: Sequence[str]) -> int:
    """Run the benchmark that the first word names, and print what it came to."""
    name, *words = argv or [""]
    if name not in BENCHMARKS:
        what = f"{name}: there is no such benchmark{did_you_mean(name, BENCHMARKS)}" if name else "bench: which one?"
        raise InputError(f"{what}; one of {', '.join(BENCHMARKS)}")
    chosen, overrides = options.parse(words)
    report = BENCHMARKS[name](chosen, overrides)
    if chosen.json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        print("\n".join(report.lines()))
    return 0
