"""usage: deepexp lecture [NAME|all] [KEY=VALUE …]

The figures of the lecture, from one command each: a demonstration prints its table and writes its pictures. Without a
name, all of them are listed, in the order of the slides.

  deepexp lecture batch_vs_loop
  deepexp lecture trajectories --help        what it shows, and its keys
  deepexp lecture trajectories optim=sgd,nesterov,adam surfaces=valley animate=true
  deepexp lecture all scale=quick            one page with all of it, training runs too, in some minutes

  to=DIR              where pictures go; outputs/lecture/NAME by default (of the page: outputs/lecture)

A demonstration that takes long has a scale, too: standard for the slides' sizes, or quick for seconds; one that draws
at random has a seed. Its code is in deepexp/lecture/NAME.py.

keys of `all`:
  scale=quick         quick, standard, full: of the demonstrations and of the presets
  training=true       also run the presets of conf/experiment and put their curves on the page

What has finished is kept below DIR, and is run again if the preset's config changes.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path

from deepexp.config import help_text
from deepexp.disk.yaml_words import yaml_word
from deepexp.errors import InputError, RunFailed
from deepexp.lecture import chapters, keys
from deepexp.paths import shown
from deepexp.text.suggest import no_such
from deepexp.text.terminal import cut_to_terminal

OUTPUTS = Path("outputs", "lecture")


def main(argv: Sequence[str]) -> int:
    """List the demonstrations, run one, or make the page of all."""
    if not argv:
        print("\n".join(_list()))
        return 0
    name, *words = argv
    if name == "all":
        return _all(words)
    _check(name)
    return _one(name, words)


def help_on(words: Sequence[str]) -> str | None:
    """The help of the demonstration that the words name; None if they name none."""
    name = next((word for word in words if word in (demo.name for demo in chapters.demos())), None)
    if name is None:
        return None
    rows = [(f"{key.name}={yaml_word(key.default)}", key.takes) for key in keys.of(name)]
    rows.append((f"to={OUTPUTS / name}", "the folder of its pictures"))
    usage = f"usage: deepexp lecture {name} [KEY=VALUE …]"
    return "\n".join([usage, "", keys.description(name), "", "keys, with their defaults:", *help_text.table(rows)])


def _one(name: str, words: Sequence[str]) -> int:
    from deepexp.lecture import options
    from deepexp.training.memory import is_out_of_memory

    demonstrate = importlib.import_module(f"deepexp.lecture.{name}").demonstrate
    given = options.parse(words, demonstrate, extra=["to"])
    folder = options.folder(given, OUTPUTS / name)
    try:
        demonstration = demonstrate(**given)
    except ValueError as error:
        raise InputError(str(error)) from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunFailed(f"{name}: out of memory; give it smaller numbers") from error
    written = demonstration.write(folder)
    print("\n".join(demonstration.lines()))
    print()
    for path in written:
        print(f"picture: {shown(path.absolute())}")
    return 0


def _all(words: Sequence[str]) -> int:
    from deepexp.lecture import course, options

    given = options.parse(words, course.Choices, extra=["to"])
    folder = options.folder(given, OUTPUTS)
    return course.make(folder, course.Choices(**given))


def _check(name: str) -> None:
    """`InputError` for a name that is no demonstration, with a suggestion."""
    known = [demo.name for demo in chapters.demos()]
    if name in known:
        return
    if name in (preset.name for preset in chapters.presets()):
        raise InputError(f"{name}: is a training run, not a demonstration: deepexp train -m experiment={name}")
    raise InputError(no_such("demonstration", name, [*known, "all"]))


def _list() -> list[str]:
    """Every part of the lecture with a line, below its chapter."""
    from deepexp.config import catalogue

    summaries = {option.name: option.summary for option in catalogue.groups().get("experiment", [])}
    width = max(len(part.name) for part in chapters.parts())
    lines = []
    for chapter in chapters.CHAPTERS:
        lines.append(chapter.title)
        for part in chapter.parts:
            text = part.summary if isinstance(part, chapters.Demo) else f"train: {summaries.get(part.name, part.shows)}"
            lines.append(cut_to_terminal(f"  {part.name.ljust(width)}  {text}"))
    lines += ["", "deepexp lecture NAME, or NAME --help for its keys"]
    lines += ["those with `train:` are presets: deepexp train -m experiment=NAME"]
    return lines
