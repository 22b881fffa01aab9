"""``/v1/models``: what may be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.responses import Response

from .openai import ERRORS
from .pool import not_found
from .streaming import json_response

if TYPE_CHECKING:
    from .answering import Answering
    from .offers import Offer
    from .pool import ModelPool


def router(answering: Answering) -> APIRouter:
    """Return the routes of the models."""
    routes = APIRouter()

    @routes.get("/v1/models", response_class=Response, responses=ERRORS)
    async def list_models() -> Response:
        """List the models that may be asked."""
        pool = answering.pool
        return json_response({"object": "list", "data": [_model(offer, pool) for offer in pool.offers.all()]})

    @routes.get("/v1/models/{model:path}", response_class=Response, responses=ERRORS)
    async def retrieve_model(model: str) -> Response:
        """Describe one model."""
        offer = answering.pool.offers.find(model)
        if offer is None:
            raise not_found(model, answering.pool.offers)
        return json_response(_model(offer, answering.pool))

    return routes


def _model(offer: Offer, pool: ModelPool) -> dict[str, Any]:
    loaded = next((each for each in pool.loaded if each.name == offer.name), None)
    about: dict[str, Any] = {"loaded": loaded is not None, "store_name": offer.store_name}
    if loaded is not None:
        model = loaded.model
        about |= {
            "device": model.device,
            "kind": model.kind,
            "precision": model.precision,
            "context_length": model.context_length,
        }
        about |= {"capabilities": sorted(model.capabilities)}
    return {"id": offer.name, "object": "model", "created": 0, "owned_by": "phi3-core", "phi3": about}
