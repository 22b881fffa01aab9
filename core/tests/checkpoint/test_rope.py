"""What ``config.json`` says of positions, in the forms of transformers 4 and 5."""

from __future__ import annotations

from pathlib import Path

import pytest
from phi3_core.checkpoint.rope import context_length, longrope_limit, read_rotary
from phi3_core.errors import ModelError

LONG = {"max_position_embeddings": 131072, "original_max_position_embeddings": 4096}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({**LONG, "rope_scaling": {"type": "longrope"}}, 4096),
        ({**LONG, "rope_scaling": {"type": "su"}}, 4096),
        ({**LONG, "rope_scaling": {"type": "longrope", "rope_type": None}}, 4096),
        ({**LONG, "rope_scaling": {"rope_type": None}}, None),
        ({**LONG, "rope_parameters": {"rope_type": "longrope"}}, 4096),
        (
            {
                "max_position_embeddings": 131072,
                "rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 2048},
            },
            2048,
        ),
        ({"max_position_embeddings": 131072, "rope_scaling": {"type": "longrope"}}, 4096),
        ({**LONG, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}, None),
        ({**LONG, "rope_scaling": None}, None),
        ({**LONG, "rope_scaling": "longrope"}, None),
        ({**LONG, "max_position_embeddings": 4096, "rope_scaling": {"type": "longrope"}}, None),
        ({"original_max_position_embeddings": 4096, "rope_scaling": {"type": "longrope"}}, None),
    ],
)
def test_where_longrope_changes(config, expected):
    assert longrope_limit(config) == expected


@pytest.mark.parametrize("value", [None, 0, -1, "4096", 4096.0, True])
def test_a_context_is_a_number_of_tokens(value):
    assert context_length({"max_position_embeddings": value}) is None
    assert context_length({"max_position_embeddings": 4096}) == 4096


def read(scaling):
    config = {**LONG, "rope_scaling": scaling}
    return read_rotary(Path("config.json"), config, head_size=8, context=131072)


@pytest.mark.parametrize("key", ["rope_type", "type"])
def test_the_type_of_scaling_may_be_null_under_one_of_its_names(key):
    given = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "rope_type": None, "type": None, key: "longrope"}
    assert read(given).long is not None
    assert read({"rope_type": None, "type": None}).long is None


def test_yarn_itself_is_not_taken_for_longrope():
    with pytest.raises(ModelError, match="of type 'yarn' without short_factor, a list of 4 numbers"):
        read({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096})
