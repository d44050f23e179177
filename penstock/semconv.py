"""Names of span attributes.

OpenTelemetry's GenAI conventions are still in development and have moved to a repository of their own,
semantic-conventions-genai, whose constants no package publishes; the RPC conventions are those of the stable track. Kept here
so that an update is one diff.
"""

from typing import Final

GENAI_CONVENTIONS: Final = "2026-10"
"""The state of the GenAI conventions that these names follow."""

RPC_SYSTEM_NAME: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"
RPC_RESPONSE_STATUS_CODE: Final = "rpc.response.status_code"
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"

GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_WORKFLOW_NAME: Final = "gen_ai.workflow.name"
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
GEN_AI_REQUEST_TOP_P: Final = "gen_ai.request.top_p"
GEN_AI_REQUEST_TOP_K: Final = "gen_ai.request.top_k"
GEN_AI_REQUEST_SEED: Final = "gen_ai.request.seed"
GEN_AI_REQUEST_PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
GEN_AI_REQUEST_FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
GEN_AI_REQUEST_CHOICE_COUNT: Final = "gen_ai.request.choice.count"
GEN_AI_REQUEST_STOP_SEQUENCES: Final = "gen_ai.request.stop_sequences"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_DATA_SOURCE_ID: Final = "gen_ai.data_source.id"
GEN_AI_EMBEDDINGS_DIMENSION_COUNT: Final = "gen_ai.embeddings.dimension.count"
# Content: only when it is switched on.
GEN_AI_INPUT_MESSAGES: Final = "gen_ai.input.messages"
GEN_AI_OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
GEN_AI_RETRIEVAL_QUERY_TEXT: Final = "gen_ai.retrieval.query.text"
GEN_AI_RETRIEVAL_DOCUMENTS: Final = "gen_ai.retrieval.documents"

PENSTOCK_ADAPTER: Final = "penstock.adapter"
PENSTOCK_BATCH_SIZE: Final = "penstock.batch.size"
PENSTOCK_CANDIDATE_COUNT: Final = "penstock.candidate.count"
PENSTOCK_DENSE_COUNT: Final = "penstock.dense.count"
PENSTOCK_FLOW_HASH: Final = "penstock.flow.content_hash"
PENSTOCK_FUSION_METHOD: Final = "penstock.fusion.method"
PENSTOCK_HIT_COUNT: Final = "penstock.hit.count"
PENSTOCK_KEY_NAME: Final = "penstock.key.name"
PENSTOCK_LEXICAL_COUNT: Final = "penstock.lexical.count"
PENSTOCK_MESSAGE_COUNT: Final = "penstock.rpc.message_count"
PENSTOCK_MISSING_SHARDS: Final = "penstock.missing_shards"
PENSTOCK_NODE_ID: Final = "penstock.node.id"
PENSTOCK_NODE_TYPE: Final = "penstock.node.type"
PENSTOCK_REASON: Final = "penstock.error.reason"
PENSTOCK_SEARCH_MODE: Final = "penstock.search.mode"
PENSTOCK_SHARD: Final = "penstock.shard"
