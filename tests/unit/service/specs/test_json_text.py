"""JSON with repeated keys, wherever they are, and without."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.specs import json_text

VALUES = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


@given(VALUES)
def test_json_without_repeated_keys_is_read_as_usual(value):
    assert json_text.loads(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ('{"a": 1, "a": 1}', "/a"),
        ('[{"a": 1}, {"b": {"c~/": 1, "c~/": 2}}]', "/1/b/c~0~1"),
        ('{"a": {"b": 1, "b": 2}, "a": 3}', "/a"),
        ('{"": 1, "": 2}', "/"),
    ],
)
def test_repeated_key_is_located(text, pointer):
    with pytest.raises(json_text.RepeatedKey) as caught:
        json_text.loads(text)
    assert caught.value.pointer == pointer
    assert str(caught.value) == f"{pointer} is given twice"


@pytest.mark.parametrize("text", ["{", "[1,]", '{"a": 1, "a": }'])
def test_what_is_no_json_is_not_about_keys(text):
    with pytest.raises(json.JSONDecodeError):
        json_text.loads(text)
