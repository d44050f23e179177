"""What a request asks of an engine beyond plain sampling, and whether the engine can do it. Nothing is ever ignored."""

from collections.abc import Iterator

from generation_svc.engine import Feature, GenerationRequest, ModelInfo
from penstock.errors import AdapterNotFound, UnsupportedFeature, Violation

_SAMPLING = tuple(
    (feature.value, feature) for feature in (Feature.TOP_K, Feature.MIN_P, Feature.REPETITION_PENALTY, Feature.MIN_TOKENS)
)


def check(request: GenerationRequest, model: ModelInfo) -> None:
    """Raises UnsupportedFeature with every feature that the model's engine lacks, AdapterNotFound for an unknown adapter."""
    lacking = [feature for feature in asked(request) if feature not in model.features]
    if lacking:
        raise unsupported(model, *lacking)
    if request.adapter and request.adapter not in model.adapters:
        there = ", ".join(model.adapters) or "none"
        message = f"the model {model.name} has no adapter {request.adapter!r}; there is {there}"
        raise AdapterNotFound(message, metadata={"adapter": request.adapter, "adapters": there})


def asked(request: GenerationRequest) -> Iterator[Feature]:
    """The features that a request needs."""
    sampling, logprobs = request.sampling, request.logprobs
    for name, feature in _SAMPLING:
        if getattr(sampling, name) is not None:
            yield feature
    if sampling.include_stop:
        yield Feature.INCLUDE_STOP
    if logprobs is not None:
        yield Feature.LOGPROBS
        if logprobs.top:
            yield Feature.TOP_LOGPROBS
        if logprobs.tokens:
            yield Feature.NAMED_LOGPROBS
    if request.structured_output is not None:
        yield request.structured_output.kind
    if request.adapter:
        yield Feature.ADAPTER
    if request.cache_salt:
        yield Feature.CACHE_SALT


def unsupported(model: ModelInfo, *lacking: Feature) -> UnsupportedFeature:
    """The refusal of what an engine can't do."""
    names = ", ".join(lacking)
    can = ", ".join(sorted(model.features)) or "none of them"
    return UnsupportedFeature(
        f"the engine {model.engine} of the model {model.name} has no {names}; leave it out, or ask another model. It has {can}",
        metadata={"features": names, "engine": model.engine, "model": model.name},
        violations=[Violation(field=feature, message=f"the engine {model.engine} cannot do this") for feature in lacking],
    )
