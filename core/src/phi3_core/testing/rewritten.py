"""The modules of the kit whose assertions pytest explains."""

MODULES = tuple(
    f"{__package__}.{name}"
    for name in (
        *(
            "capabilities",
            "diagnosing",
            "detecting",
            "generating",
            "importing",
            "lengths",
            "lifetime",
            "lines",
            "loading",
            "logits",
        ),
        *("many", "memory", "progress", "published", "quantizing", "recognizing", "refusing", "sampling", "whole_way"),
    )
)
