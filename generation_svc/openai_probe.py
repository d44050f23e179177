"""What an endpoint says of itself: its models, their window and adapters, and which fields it understands."""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any, Final

from generation_svc.engine import Feature, ModelInfo
from generation_svc.openai_dialect import Described, Dialect, described, dialect_of, features_of
from generation_svc.openai_http import ENGINE, Endpoint
from generation_svc.settings import GenerationSettings
from penstock.errors import BackendUnavailable, FailedPrecondition, ModelNotFound, Overloaded, PenstockError

log = logging.getLogger("generation_svc.openai")

_PROBE_INTERVAL_S: Final = 0.5
_SET_BY_HAND: Final = "set PENSTOCK_GENERATION_OPENAI_DIALECT if it is current"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The model that an endpoint has for us, and how to ask for it."""

    model: ModelInfo
    dialect: Dialect


async def probe(endpoint: Endpoint, settings: GenerationSettings) -> Found:
    """Waits for the endpoint. Raises BackendUnavailable, ModelNotFound, FailedPrecondition."""
    until = time.monotonic() + settings.openai_ready_timeout_s
    while True:
        try:
            return await _found(endpoint, settings)
        except (BackendUnavailable, Overloaded) as error:
            left_s = until - time.monotonic()
            if left_s <= 0:
                message = f"{error.message}; is the endpoint up, and PENSTOCK_GENERATION_OPENAI_BASE_URL right?"
                raise BackendUnavailable(message, metadata=error.metadata) from error
            log.info("waiting: %s", error.message)
            pause_s = max(_PROBE_INTERVAL_S, min(error.retry_after_s or 0.0, left_s))
        await asyncio.sleep(pause_s)


async def _found(endpoint: Endpoint, settings: GenerationSettings) -> Found:
    listed = _listed(await endpoint.look_up(endpoint.base_url / "models"))
    card = _card(settings.model, listed)
    dialect = dialect_of(settings.openai_dialect, card.get("owned_by"))
    if settings.openai_priorities and dialect.name != "vllm":
        message = f"PENSTOCK_GENERATION_OPENAI_PRIORITIES is on, but the endpoint's dialect is {dialect.name}; turn it off"
        raise FailedPrecondition(message)
    by_hand = settings.openai_dialect != "auto"
    said = await _described(endpoint) if dialect.describes_itself else None
    if said is None and dialect.describes_itself and not by_hand:
        names = ", ".join(sorted(dialect.recent))
        log.warning("the endpoint does not describe itself: without %s, as an old one; %s", names, _SET_BY_HAND)
    adapters = tuple(dict.fromkeys((*_adapters(settings.model, listed), *settings.openai_adapters)))
    window = card.get("max_model_len")
    model = ModelInfo(
        name=settings.served_name,
        engine=ENGINE,
        context_window=window if isinstance(window, int) else settings.context_window,
        features=features_of(dialect, said, by_hand=by_hand) | ({Feature.ADAPTER} if adapters else frozenset()),
        adapters=adapters,
    )
    return Found(model=model, dialect=dialect)


async def _described(endpoint: Endpoint) -> Described | None:
    """What it says of its fields; None where it does not say, or says it to others."""
    try:
        return described(await endpoint.look_up(endpoint.root_url / "openapi.json"))
    except PenstockError as error:
        log.info("the endpoint's description cannot be read: %s", error.message)
        return None


def _listed(answer: Any) -> dict[Any, dict[str, Any]]:
    """Its models by name. Empty where it has no such list; whether it has the model, the first request will tell."""
    cards = (answer or {}).get("data")
    return {card.get("id"): card for card in cards if isinstance(card, dict)} if isinstance(cards, list) else {}


def _card(name: str, listed: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    if listed and name not in listed:
        message = f"the endpoint has no model {name!r}; PENSTOCK_GENERATION_MODEL must be one of {', '.join(map(str, listed))}"
        raise ModelNotFound(message)
    return listed.get(name, {})


def _adapters(name: str, listed: dict[Any, dict[str, Any]]) -> list[str]:
    """The models that vLLM lists with ours as their parent, by whichever of its names."""
    root = listed.get(name, {}).get("root")
    ours = {name} | {other for other, card in listed.items() if root is not None and card.get("root") == root}
    return [str(other) for other, card in listed.items() if card.get("parent") in ours]
