import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepexp.sweep.names import LONGEST, job_names


def test_a_name_has_the_varying_values() -> None:
    assert job_names([{"batch_size": "100", "optim.lr": "0.1"}, {"batch_size": "100", "optim.lr": "1e-05"}]) == [
        "batch_size=100,optim.lr=0.1",
        "batch_size=100,optim.lr=1e-05",
    ]
    assert job_names([{"data.root": "größe_1"}]) == ["data.root=größe_1"]
    assert job_names([{}]) == ["job"]


def test_values_with_characters_that_no_folder_can_have_get_a_hash() -> None:
    slash, colon = job_names([{"data.root": "a/b"}, {"data.root": "a:b"}])
    assert slash.startswith("data.root=a_b-") and colon.startswith("data.root=a_b-")
    assert slash != colon


def test_lists_stay_readable_in_names() -> None:
    rule, empty = job_names([{"freeze": "[{pattern:features.*,share:0.5}]"}, {"freeze": "[]"}])
    assert rule.startswith("freeze=pattern_features.,share_0.5-")
    assert empty.startswith("freeze=empty-")


def test_names_that_differ_only_in_case_stay_different_on_any_system() -> None:
    lower, upper = job_names([{"name": "x"}, {"name": "X"}])
    assert lower.casefold() != upper.casefold()


@given(st.lists(st.dictionaries(st.text(max_size=8), st.text(max_size=200), max_size=4), max_size=6))
def test_every_name_is_a_safe_one(points: list[dict[str, str]]) -> None:
    for name in job_names(points):
        assert 0 < len(name.encode()) <= LONGEST
        assert not set(name) & set('/\\\0:*?"<>|\n') and name not in (".", "..") and name[-1] != "."


@pytest.mark.parametrize("length", [LONGEST - 6, LONGEST - 5, LONGEST - 4, 3000])
def test_long_names_stay_different(length: int) -> None:
    first, second = job_names([{"key1": "v" * length + "a"}, {"key1": "v" * length + "b"}])
    assert first != second
