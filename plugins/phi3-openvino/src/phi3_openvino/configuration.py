"""A request in the words of OpenVINO GenAI."""

from __future__ import annotations

import os
from typing import Any

import openvino_genai
from phi3_core.values import GenerationRequest

_NO_TOKEN = 2**31 - 1
"""An id that no vocabulary has."""


def configuration(request: GenerationRequest) -> Any:
    """Return the ``GenerationConfig`` of a request."""
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = request.max_new_tokens
    if request.stop_ids:
        config.eos_token_id = request.stop_ids[0]
        config.stop_token_ids = set(request.stop_ids)
    else:
        config.ignore_eos = True
        # The pipeline that batches insists on a token to stop at.
        config.eos_token_id = _NO_TOKEN
        config.stop_token_ids = {_NO_TOKEN}
    sampling = request.sampling
    config.repetition_penalty = sampling.repetition_penalty
    config.do_sample = sampling.temperature > 0
    if config.do_sample:
        config.temperature = sampling.temperature
        config.top_p = sampling.top_p
        if sampling.top_k:
            config.top_k = sampling.top_k
        # OpenVINO GenAI's default seed is constant.
        config.rng_seed = int.from_bytes(os.urandom(4), "little") if sampling.seed is None else sampling.seed
    return config
