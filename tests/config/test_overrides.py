import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from deepexp.config.overrides import PATH_KEYS, quote, quote_paths, repeated, split, split_flags, unquote
from deepexp.errors import InputError

# Letters that mean something to Hydra's grammar, to its quotes or to a shell, and some that mean nothing.
AWKWARD = st.text(st.sampled_from("ab'\"\\ =,(){}[]#~ü$%:\t\n/.+-*?|!;日"), min_size=1, max_size=12)


def read_by_hydra(override: str):
    return OverridesParser.create().parse_override(override)


@settings(max_examples=500)
@given(AWKWARD | st.text(max_size=20))
def test_hydra_reads_back_what_was_quoted(text):
    override = read_by_hydra(f"resume={quote(text)}")
    assert override.value() == text
    assert not override.is_sweep_override()
    assert unquote(quote(text)) == text


@pytest.mark.parametrize(
    "path",
    ["a b", "ü", "x=1,y", "(1)", "#", "~/d", "it's", 'say "so"', r"C:\data", "back\\", " a ", "10", "1e3", "true",
     "a,b", "{a}", "[1]", "a:b", "日本", "a;b&c", "-x", "$HOME", "%", "'", "a\\'b", "*"],
)  # fmt: skip
@pytest.mark.parametrize("key", sorted(PATH_KEYS - {"model.pretrained"}))
def test_any_path_is_taken_literally(key, path):
    (quoted,) = quote_paths([f"{key}={path}"])
    override = read_by_hydra(quoted)
    assert (override.key_or_group, override.value()) == (key, path)
    assert not override.is_sweep_override()
    assert quote_paths([quoted]) == [quoted]


@pytest.mark.parametrize(
    "override",
    [
        "resume=null",
        "resume=",
        "resume='a b'",
        'resume="a b"',
        r"resume='it\'s'",
        "data.root=choice('a b','c')",
        "model.pretrained=auto",
        "model.pretrained=true",
        "model.pretrained=false,true",
        "model.pretrained=false,'a b'",
        "batch_size=10,100",
        "optim.groups=[{pattern: '*.bias'}]",
        "~data.root",
        "~data.root=x=1",
        "resume",
    ],
)
def test_overrides_that_are_not_rewritten(override):
    assert quote_paths([override]) == [override]


def test_null_is_no_path():
    assert read_by_hydra("resume=null").value() is None


@pytest.mark.parametrize(
    ("given", "quoted"),
    [
        ("+input=a b", "+input='a b'"),
        ("++data.root=x=1", "++data.root='x=1'"),
        ("model.pretrained=true.pt", "model.pretrained='true.pt'"),
        ("model.pretrained=true,a.pt", "model.pretrained=true,'a.pt'"),
        ("init_from=null,a b,'c,d'", "init_from=null,'a b','c,d'"),
        ("init_from=null,", "init_from='null,'"),
        ("init_from=nullify,b", "init_from='nullify,b'"),
        ("resume='a'b'", r"resume='\'a\'b\''"),  # begins and ends with a quote and yet is not quoted
    ],
)
def test_prefixes_and_unbalanced_quotes_are_handled(given, quoted):
    assert quote_paths([given]) == [quoted]


def test_an_interpolation_in_a_path_is_kept():
    from omegaconf import OmegaConf

    override = read_by_hydra(quote_paths(["output_dir=${oc.env:DEEPEXP_TEST_HOME,/tmp}/a b"])[0])
    assert OmegaConf.create({"output_dir": override.value()}).output_dir == "/tmp/a b"


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("a.b=c=d", ("", "a.b", "c=d")),
        ("++a=", ("++", "a", "")),
        ("~a", ("~", "a", None)),
        ("word", ("", "word", None)),
    ],
)
def test_an_override_is_split_into_prefix_key_and_value(override, parts):
    assert split(override) == parts


FLAGS = {"-m": (), "--multirun": (), "--cfg": ("job", "hydra")}


@pytest.mark.parametrize(
    ("argv", "overrides", "flags"),
    [
        ([], [], {}),
        (["a=1", "-m", "b=2"], ["a=1", "b=2"], {"-m": ""}),
        (["--cfg", "job", "a=1"], ["a=1"], {"--cfg": "job"}),
        (["--cfg=hydra", "~a"], ["~a"], {"--cfg": "hydra"}),
    ],
)
def test_flags_stand_anywhere(argv, overrides, flags):
    assert split_flags(argv, FLAGS) == (overrides, flags)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--multi"], "--multi: there is no such flag (did you mean '--multirun'?); one of -m, --multirun, --cfg"),
        (["--cfg"], "--cfg: takes one of job, hydra, not ''"),
        (["--cfg", "all"], "--cfg: takes one of job, hydra, not 'all'"),
        (["-m=3"], "-m: takes no value, not '3'"),
        (["--x", "1"], "--x: there is no such flag; one of -m, --multirun, --cfg, --help; a key is set as KEY=VALUE,"),
        (["--hlep"], "--hlep: there is no such flag (did you mean '--help'?); one of"),
    ],
)
def test_wrong_flags_are_refused(argv, message):
    with pytest.raises(InputError) as caught:
        split_flags(argv, FLAGS)
    assert str(caught.value).startswith(message)


def test_a_key_that_is_given_several_times_is_named_with_the_value_that_counts():
    words = ["optim.lr=0.1", "model=resnet", "epochs=3", "+optim.lr=a=b", "optim=adam"]
    assert repeated(words) == ["optim.lr: is given 2 times; only the last counts, optim.lr=a=b"]
    assert repeated(["seed=1", "seed=1", "seed="]) == ["seed: is given 3 times; only the last counts, seed="]
    assert repeated(["optim=adam", "~optim"]) == []
