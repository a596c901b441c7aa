"""usage: deepexp completion bash|fish|zsh

Print the script that lets a shell complete commands, config keys, options of groups and paths on the tab key.
To have it in every new shell:

  bash   echo 'eval "$(deepexp completion bash)"' >> ~/.bashrc
  zsh    echo 'eval "$(deepexp completion zsh)"' >> ~/.zshrc     (after compinit)
  fish   deepexp completion fish > ~/.config/fish/completions/deepexp.fish
"""

import dataclasses
import re
import types
import typing
from collections.abc import Iterator, Sequence

from deepexp import schema
from deepexp.commands import COMMANDS
from deepexp.config import catalogue, presets
from deepexp.config.overrides import PATH_KEYS, WORDS, split
from deepexp.errors import InputError
from deepexp.text.suggest import did_you_mean

# A shell asks with the line up to the cursor and gets one whole word a line, with a blank after it when the word is
# complete; the line `:path` stands for the files below what follows the `=`, or below the word.
PATH = ":path"

BASH = r"""
_deepexp() {
    local line="${COMP_LINE:0:COMP_POINT}" word="${COMP_WORDS[COMP_CWORD]}" found lead="" is_value="" IFS=$'\n'
    COMPREPLY=($(deepexp completion --line "$line" 2>/dev/null))
    # To bash `=` is a word of its own, and only what follows it is completed, unless COMP_WORDBREAKS was changed.
    [[ "$word" == "=" || "${COMP_WORDS[COMP_CWORD - 1]}" == "=" ]] && is_value=1
    [[ "$word" == "=" ]] && word=""
    if [[ "${COMPREPLY[0]}" == ":path" ]]; then
        [[ -z "$is_value" && "$word" == *=* ]] && lead="${word%%=*}="
        word="${word#"$lead"}"
        COMPREPLY=()
        for found in $(compgen -f -- "${word//\\/}"); do
            [[ -d "$found" ]] && found="$(printf %q "$found")/" || found="$(printf %q "$found") "
            COMPREPLY+=("$lead$found")
        done
    elif [[ -n "$is_value" ]]; then
        COMPREPLY=("${COMPREPLY[@]#*=}")
    fi
}
complete -o nospace -F _deepexp deepexp
"""

ZSH = r"""
#compdef deepexp
_deepexp() {
    local -a found
    found=("${(@f)$(deepexp completion --line "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)}")
    if [[ "$found[1]" == ":path" ]]; then
        compset -P '*='
        _files
    elif [[ -n "$found[1]" ]]; then
        compadd -Q -S '' -a found
    fi
}
compdef _deepexp deepexp
"""

FISH = r"""
function __deepexp_complete
    set -l found (deepexp completion --line (commandline -cp) 2>/dev/null)
    if test "$found[1]" = ":path"
        set -l word (commandline -ct)
        set -l lead (string match -r '^[^=]*=' -- $word)
        for path in (__fish_complete_path (string replace -r '^[^=]*=' '' -- $word))
            echo "$lead$path"
        end
    else
        string trim --right -- $found
    end
end
complete -c deepexp -f -a '(__deepexp_complete)'
"""

WORD = r"""(?:\\.|'[^']*'?|"[^"]*"?|[^\s\\])+"""  # of a shell: blanks may be escaped or in quotes

SCRIPTS = {"bash": BASH, "fish": FISH, "zsh": ZSH}


def main(argv: Sequence[str]) -> int:
    """Print a shell's script or, for that script, the words that may stand at the end of a line."""
    if len(argv) == 2 and argv[0] == "--line":
        print("\n".join(complete(argv[1])))
        return 0
    shell = argv[0] if argv else ""
    if shell not in SCRIPTS or len(argv) != 1:
        found = " ".join(argv) or "nothing"
        raise InputError(f"completion: needs one of {', '.join(SCRIPTS)}, not {found}{did_you_mean(shell, SCRIPTS)}")
    print(SCRIPTS[shell].strip())
    return 0


def complete(line: str) -> list[str]:
    """The words that a command line may end in, given its text up to the cursor."""
    words = re.findall(WORD, line)
    typed = words.pop() if words and line.endswith(words[-1]) else ""
    if len(words) <= 1:
        return _begun([f"{word} " for word in [*COMMANDS, "--help", "--version"]], typed)
    name, *before = words[1:]
    if name not in COMMANDS:
        return []
    command = COMMANDS[name]
    first = [f"{word} " for word in command.words if not before]
    if name == "list":
        first = [f"{group} " for group in catalogue.groups()]
    own = _own_keys(name, before[:1])
    prefix, key, value = split(typed)
    if value is not None and (key in own or not command.takes_keys):
        return [PATH] if key in command.path_keys else _extended(f"{key}=", own.get(key, ()), value)
    if value is not None:
        return _values(f"{prefix}{key}=", key, value)
    first += [f"{option}=" for option in own]
    if command.takes_keys:
        flags = ["-m ", "--multirun ", "--cfg ", "--help "] if name == "train" else ["--help "]
        return _begun([*first, *flags, *(f"{prefix}{key}=" for key in _keys(before))], typed)
    found = _begun([*first, "--help "], typed)
    return [PATH] if command.takes_paths and typed and not found else found


def _own_keys(command: str, chosen: Sequence[str]) -> dict[str, Sequence[str]]:
    """The options that a command has itself, or one of its words that is `chosen`; and the values of each, if few."""
    if command == "bench":
        from deepexp.bench.options import BENCHMARKS  # here, as they import a YAML parser that no other command needs
        from deepexp.config.options import names_of

        return {name: () for word in chosen if word in BENCHMARKS for name in names_of(BENCHMARKS[word])}
    if command == "lecture":
        from deepexp.lecture import keys

        named = {key.name: key.words for word in chosen if word in COMMANDS[command].words for key in keys.of(word)}
        return {name: words or _names(name) for name, words in named.items()} | ({"to": ()} if chosen else {})
    return dict.fromkeys(COMMANDS[command].keys, ())


def _names(group: str) -> Sequence[str]:
    """The options of a config group; none if there is no such group."""
    return catalogue.names(group) if group in catalogue.groups() else ()


def _begun(words: Sequence[str], typed: str) -> list[str]:
    return [word for word in words if word.startswith(typed)]


def _keys(before: Sequence[str]) -> Iterator[str]:
    """Groups, the keys of the options that are chosen so far, and the keys that are always there."""
    chosen = catalogue.defaults()
    chosen.update({key: value for _, key, value in map(split, before) if key in chosen})
    for group, options in catalogue.groups().items():
        yield group
        for option in options:
            if option.name == chosen.get(group) and group != presets.GROUP:
                yield from (f"{group}.{key}" for key in option.keys)
    yield presets.SCALE
    yield from (key for key, _, _ in schema.describe_keys())


def _values(start: str, key: str, typed: str) -> list[str]:
    """What may stand after a config key, for which `start` is typed."""
    if key in PATH_KEYS:
        words = sorted(WORDS.get(key, ()))
        if not any(word.startswith(typed) for word in words):
            return [PATH]
        return _extended(start, words, typed)
    usual = presets.USUAL if key == presets.SCALE else _names(key)
    return _extended(start, usual or _literals(key), typed)


def _extended(start: str, words: Sequence[str], typed: str) -> list[str]:
    """`KEY=` and the words that `typed` may become; of several values with commas, the last is completed."""
    done, comma, last = typed.rpartition(",")
    return [f"{start}{done}{comma}{word} " for word in words if word.startswith(last)]


def _literals(key: str) -> list[str]:
    """The words that a key of the schema takes."""
    annotation: typing.Any = schema.TrainConfig
    for name in key.split("."):
        if not dataclasses.is_dataclass(annotation):
            return []
        annotation = typing.get_type_hints(annotation).get(name)
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    words: list[str] = []
    for option in options:
        if typing.get_origin(option) is typing.Literal:
            words += typing.get_args(option)
        elif option is bool:
            words += ["true", "false"]
        elif option is type(None):
            words.append("null")
    return words
