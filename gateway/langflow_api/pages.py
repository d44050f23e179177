"""What LangFlow's clients ask of a server before anything else: whether it lives, which version it is, how it is set."""

import asyncio
import time
from typing import Any, Final

from gateway.flows import Flows
from gateway.langflow_api.wording import Refused
from penstock.errors import PenstockError
from penstock.transcoding.dialect import DialectCall

VERSION: Final = "1.13.0"
"""The release of LangFlow whose API this is."""

_CHECK_S: Final = 2.0
_FRESH_S: Final = 1.0


class Pages:
    """Handlers of pages that ask for no key. `body_bytes_max` is the largest request."""

    def __init__(self, flows: Flows, body_bytes_max: int) -> None:
        self._flows = flows
        self._config = _config(body_bytes_max)
        self._checked_at = float("-inf")
        self._sound = True

    async def health(self, call: DialectCall) -> None:
        """GET /health."""
        await call.answer(200, {"status": "ok"})

    async def health_check(self, call: DialectCall) -> None:
        """GET /health_check: 500 where the database of flows cannot be asked."""
        await self._check()
        if not self._sound:
            raise Refused(500, {"detail": {"status": "nok", "chat": "ok", "db": "error check the server logs"}})
        await call.answer(200, {"status": "ok", "chat": "ok", "db": "ok"})

    async def healthz(self, call: DialectCall) -> None:
        """GET /healthz: that the process lives, whatever it depends on; what was last known of the database."""
        await call.answer(200, {"status": "ok", "chat": "ok", "db": "ok" if self._sound else "error check the server logs"})

    async def version(self, call: DialectCall) -> None:
        """GET /api/v1/version."""
        await call.answer(200, {"version": VERSION, "main_version": VERSION, "package": "Langflow"})

    async def config(self, call: DialectCall) -> None:
        """GET /api/v1/config."""
        await call.answer(200, self._config)

    async def _check(self) -> None:
        """Asks the database, at most once every _FRESH_S."""
        if time.monotonic() - self._checked_at < _FRESH_S:
            return
        self._checked_at = time.monotonic()
        try:
            async with asyncio.timeout(_CHECK_S):
                await self._flows.page(1, "")
        except (PenstockError, TimeoutError):
            self._sound = False
        else:
            self._sound = True


def _config(body_bytes_max: int) -> dict[str, Any]:
    """What LangFlow tells its own page, as far as it means something here."""
    return {
        "feature_flags": {
            "wxo_deployments": False, "mvp_components": False, "instance_migration": False, "data_subject_requests": False
        },
        "max_file_size_upload": max(1, body_bytes_max // 2**20), "event_delivery": "streaming", "voice_mode_available": False,
        "frontend_timeout": 0, "mcp_base_url": "", "enable_extension_reload": False, "authz_enabled": False,
        "catalog_governance_enabled": False, "substitute_outdated_component_code": False, "type": "full",
        "serialization_max_items_length": 1000, "serialization_max_text_length": 6000, "auto_saving": False,
        "auto_saving_interval": 5000, "health_check_max_retries": 5, "webhook_polling_interval": 0,
        "public_flow_cleanup_interval": 3600, "public_flow_expiration": 86400, "webhook_auth_enable": True,
        "default_folder_name": "", "hide_getting_started_progress": True, "allow_custom_components": False,
        "embedded_mode": False, "hide_logout_button": True, "hide_new_project_button": True, "hide_new_flow_button": True,
        "hide_starter_projects": True, "mcp_servers_locked": True, "custom_component_admin_only": True, "a2a_enabled": False,
        "agentic_experience": False, "assistant_max_message_length": 2000, "local_vector_store_available": False,
        "default_vector_store_backend": "penstock", "configured_vector_store_backends": [], "blocked_component_types": [],
    }  # fmt: skip
