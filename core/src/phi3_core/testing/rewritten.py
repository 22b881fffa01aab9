"""The modules of the kit whose assertions pytest explains."""

MODULES = tuple(
    f"{__package__}.{name}"
    for name in (
        *("diagnosing", "detecting", "generating", "importing", "lengths", "lifetime", "loading", "logits"),
        *("many", "published", "quantizing", "recognizing", "refusing", "sampling", "whole_way"),
    )
)
