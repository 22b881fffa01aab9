"""What ``config.json`` says of positions, in the forms of transformers 4 and 5."""

from __future__ import annotations

import pytest
from phi3_core.checkpoint.rope import context_length, longrope_limit

LONG = {"max_position_embeddings": 131072, "original_max_position_embeddings": 4096}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({**LONG, "rope_scaling": {"type": "longrope"}}, 4096),
        ({**LONG, "rope_scaling": {"type": "su"}}, 4096),
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
