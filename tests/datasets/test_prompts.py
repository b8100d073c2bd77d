"""Prompts of class names."""

import pytest

from datasets.prompts import fill_prompts


def test_names_are_taken_as_they_are() -> None:
    assert fill_prompts(["ride_bike", "Hug {x}"], ["a person {}", "{}!"]) == [
        ["a person ride_bike", "ride_bike!"],
        ["a person Hug {x}", "Hug {x}!"],
    ]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a person", "its placeholders are none"),
        ("{} and {}", "its placeholders are {}, {}"),
        ("a {label}", "its placeholders are {label}"),
        ("a {0}", "its placeholders are {0}"),
        ("a {", "Single '{' encountered"),
    ],
)
def test_wrong_placeholders_are_refused(template: str, message: str) -> None:
    with pytest.raises(ValueError, match="write {} once") as caught:
        fill_prompts(["run"], [template])
    assert message in str(caught.value) and repr(template) in str(caught.value)


def test_no_template_is_refused() -> None:
    with pytest.raises(ValueError, match="no prompt template"):
        fill_prompts(["run"], [])
