"""The gateway's process: the only place that names its adapters."""

import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from typing import Final

import grpc
from opentelemetry.trace import TracerProvider

from gateway.backends import Backends, Sessions, Web
from gateway.clients import GrpcGenerator, GrpcRetriever
from gateway.compiler import Compiler, RunLimits
from gateway.databases.connections import SqlConnections, open_databases
from gateway.databases.reading import ReadingLimits
from gateway.flow_cache import FlowCache
from gateway.flow_model import Bounds
from gateway.flows import Flows, LateSubflows
from gateway.job_store import open_job_store
from gateway.langflow_api.dialect import LangflowApi
from gateway.langflow_api.jobs import Jobs, working
from gateway.mcp_tools.dialect import mcp_dialect
from gateway.openai_api.dialect import OpenAiDialect
from gateway.replicas.generator import ReplicatedGenerator, replicated
from gateway.replicas.replica import ReplicaLimits
from gateway.replicas.statistics import Statistics
from gateway.seeding import seed
from gateway.servicer import FlowServicer, RunServicer
from gateway.sessions import MemorySessions
from gateway.settings import GatewaySettings
from gateway.store import SqlFlowStore, open_store
from gateway.variables import open_variables
from gateway.web.hosts import parse_hosts
from gateway.web.limits import WebLimits
from gateway.web.opening import open_web
from penstock import identity
from penstock.addresses import parse_target
from penstock.channel import open_channel
from penstock.flow.v1 import flow_pb2_grpc
from penstock.link.channel import open_linked_channel
from penstock.server import Assembly, Service, run
from penstock.telemetry import Telemetry

log = logging.getLogger(__name__)


@asynccontextmanager
async def assemble(assembly: Assembly) -> AsyncIterator[None]:
    """Opens the store and the channels, keeps the flows of the folder, mounts the servicers.

    The gateway is ready without its backends: a flow that needs one that is away says so, and others still run.
    """
    settings: GatewaySettings = assembly.settings
    provider = assembly.telemetry.tracer_provider
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(settings.database_url, settings.data_dir))
        retrieval = await stack.enter_async_context(_channel(settings.retrieval_target, settings, provider))
        generation = await stack.enter_async_context(_generation(settings, assembly.telemetry))
        sessions = await stack.enter_async_context(_sessions(settings))
        databases = await stack.enter_async_context(_databases(settings))
        web = await stack.enter_async_context(_web(settings))
        subflows = LateSubflows()
        compiler = Compiler(
            backends=Backends(
                retriever=GrpcRetriever(retrieval, timeout_s=settings.retrieval_timeout_s),
                generator=generation[settings.generation_target],
                embedder=generation[settings.generation_embed_target or settings.generation_target],
                reranker=generation[settings.generation_rerank_target or settings.generation_target],
                sessions=sessions,
                subflows=subflows,
                databases=databases,
                web=web,
                variables=open_variables(os.environ, settings.variables_dir),
            ),
            tracer=assembly.telemetry.tracer("gateway"),
            limits=_limits(settings),
            capture_content=assembly.telemetry.capture_content,
        )
        flows = Flows(
            store=store,
            cache=FlowCache(settings.flow_cache_max),
            compiler=compiler,
            refresh_s=settings.flow_refresh_s,
            names_max=settings.flow_cache_max,
        )
        subflows.flows = flows
        if settings.flows_dir is not None:
            await seed(flows, settings.flows_dir)
        flow_pb2_grpc.add_FlowServiceServicer_to_server(FlowServicer(flows), assembly.dispatcher)  # type: ignore[no-untyped-call]
        flow_pb2_grpc.add_RunServiceServicer_to_server(RunServicer(flows), assembly.dispatcher)  # type: ignore[no-untyped-call]
        assembly.dispatcher.dialects.append(OpenAiDialect(flows, sessions))
        tools = mcp_dialect(settings.mcp_origins.split(","), settings.message_bytes_max)
        assembly.dispatcher.dialects.append(await stack.enter_async_context(tools))
        jobs = await stack.enter_async_context(working(await _jobs(settings, store)))
        assembly.dispatcher.dialects.append(_langflow_api(settings, flows, sessions, jobs))
        yield


async def _jobs(settings: GatewaySettings, store: SqlFlowStore) -> Jobs:
    kept = await open_job_store(store, kept_max=settings.background_results_max, expiry_s=settings.background_expiry_s)
    return Jobs(kept, running_max=settings.background_runs_max, waiting_max=settings.background_queue_max)


def _langflow_api(settings: GatewaySettings, flows: Flows, sessions: Sessions, jobs: Jobs) -> LangflowApi:
    return LangflowApi(
        flows,
        sessions,
        jobs,
        faces_max=settings.flow_cache_max,
        deadline_s=settings.run_deadline_s,
        body_bytes_max=settings.message_bytes_max,
    )


def _databases(settings: GatewaySettings) -> AbstractAsyncContextManager[SqlConnections]:
    limits = ReadingLimits(
        connections_max=settings.sql_connections_max,
        timeout_s=settings.sql_timeout_s,
        answer_bytes_max=settings.tool_answer_bytes_max,
    )
    return open_databases(settings.sql_connections.get_secret_value(), limits)


def _web(settings: GatewaySettings) -> AbstractAsyncContextManager[Web]:
    limits = WebLimits(timeout_s=settings.http_timeout_s, answer_bytes_max=settings.tool_answer_bytes_max)
    return open_web(parse_hosts(settings.http_hosts), os.environ, limits)


@asynccontextmanager
async def _generation(settings: GatewaySettings, telemetry: Telemetry) -> AsyncIterator[Mapping[str, ReplicatedGenerator]]:
    """The replicas of each target: a process of generation has one model, so those that embed or rerank may be others."""
    named = (settings.generation_target, settings.generation_embed_target, settings.generation_rerank_target)
    async with AsyncExitStack() as stack:
        statistics = Statistics(telemetry.meter("gateway"))
        yield {
            target: await stack.enter_async_context(_replicated(target, settings, telemetry, statistics))
            for target in dict.fromkeys(named)
            if target
        }


def _replicated(
    target: str, settings: GatewaySettings, telemetry: Telemetry, statistics: Statistics
) -> AbstractAsyncContextManager[ReplicatedGenerator]:
    def connect(address: str) -> GrpcGenerator:
        # What fails is tried on another replica, and not by gRPC on the same one. Only a model is shared out by tenants.
        of = open_linked_channel if settings.generation_links else open_channel
        channel = _channel(address, settings, telemetry.tracer_provider, retries=False, tenant=_tenant, of=of)
        return GrpcGenerator(channel, timeout_s=settings.generation_timeout_s)

    limits = ReplicaLimits(
        load_factor=settings.generation_load_factor,
        tries_max=settings.generation_tries_max,
        report_interval_s=settings.generation_report_interval_s,
        close_grace_s=settings.generation_timeout_s,
    )
    return replicated(parse_target(target), connect, limits=limits, statistics=statistics)


def _sessions(settings: GatewaySettings) -> AbstractAsyncContextManager[Sessions]:
    url, messages_max, expiry_s = (
        settings.sessions_url.get_secret_value(),
        settings.sessions_messages_max,
        settings.sessions_expiry_s,
    )
    if url:
        from gateway.redis_sessions import redis_sessions  # noqa: PLC0415  # It takes long to import, and few gateways need it.

        return redis_sessions(
            url, messages_max=messages_max, expiry_s=expiry_s, timeout_s=settings.sessions_timeout_s, tenant=_tenant
        )
    if settings.workers > 1:
        log.warning(
            "every worker keeps the conversations that it has had itself; PENSTOCK_GATEWAY_SESSIONS_URL lets them share"
        )
    return nullcontext(MemorySessions(messages_max=messages_max, expiry_s=expiry_s, tenant=_tenant))


def _limits(settings: GatewaySettings) -> RunLimits:
    bounds = Bounds(
        model_calls=settings.run_model_calls_max, tokens=settings.run_tokens_max, retrievals=settings.run_retrievals_max
    )
    return RunLimits(deadline_s=settings.run_deadline_s, events_max=settings.stream_buffer_max, bounds=bounds)


def _tenant() -> str:
    return identity.current().tenant


def _channel(
    target: str,
    settings: GatewaySettings,
    provider: TracerProvider,
    *,
    retries: bool = True,
    tenant: Callable[[], str] | None = None,
    of: Callable[..., grpc.aio.Channel] = open_channel,
) -> grpc.aio.Channel:
    return of(
        target,
        tracer_provider=provider,
        message_bytes_max=settings.message_bytes_max,
        retries=retries,
        api_key=settings.backend_api_key.get_secret_value(),
        principals=lambda: identity.current().principals,
        tenant=tenant,
    )


SERVICE: Final = Service(
    name="gateway",
    rpc_services=("penstock.flow.v1.FlowService", "penstock.flow.v1.RunService"),
    settings=GatewaySettings,
    assemble=assemble,
    scopes={
        "GetFlow": "read",
        "ListFlows": "read",
        "ValidateFlow": "read",
        "GetFlowSchema": "read",
        "RunFlow": "read",
        "StreamFlow": "read",
        "CreateFlow": "write",
        "DeleteFlow": "write",
    },
)

if __name__ == "__main__":
    run(SERVICE)
