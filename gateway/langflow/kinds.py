"""What a component is, under any of the names that LangFlow's releases gave it.

A name is compared without case, spaces and a trailing "component". It is the type that the file writes ("Prompt Template",
"ext:openai:OpenAIModelComponent@official"), or else the class that its metadata names.
"""

import re
from typing import Any, Final

_NAMES: Final[dict[str, str]] = {
    "ChatInput": "ChatInput",
    "ChatOutput": "ChatOutput",
    "TextInput": "TextInput",
    "TextOutput": "TextOutput",
    "Webhook": "Webhook",
    "Prompt": "Prompt, PromptTemplate",
    "Model": "LanguageModel, OpenAIModel, AnthropicModel, AIMLModel, AmazonBedrock, AmazonBedrockModel, "
    "AmazonBedrockConverse, AmazonBedrockConverseModel, AzureOpenAIModel, AzureChatOpenAI, BaiduQianfanChatModel, "
    "QianfanChatEndpoint, ChatLiteLLMModel, ChatOllama, ChatVertexAI, Cohere, CohereModel, CometAPI, CometAPIModel, "
    "DeepSeekModel, GoogleGenerativeAI, GoogleGenerativeAIModel, GroqModel, HuggingFaceEndpoints, HuggingFaceModel, "
    "IBMwatsonxModel, WatsonxAI, LiteLLMProxy, LiteLLMProxyModel, LMStudioModel, Maritalk, MaritalkModel, "
    "MistralAIModel, MistralModel, NovitaModel, NVIDIAModel, OllamaModel, OpenRouter, OpenAICompatibleModel, "
    "Perplexity, PerplexityModel, SambaNova, SambaNovaModel, VertexAiModel, Vllm, vLLMModel, xAIModel",
    "Embedding": "EmbeddingModel, OpenAIEmbeddings, AIMLEmbeddings, AmazonBedrockEmbeddings, AstraVectorize, "
    "AzureOpenAIEmbeddings, CloudflareWorkersAIEmbeddings, CohereEmbeddings, FakeEmbeddings, "
    "GoogleGenerativeAIEmbeddings, HuggingFaceInferenceAPIEmbeddings, LangChainFakeEmbeddings, LMStudioEmbeddings, "
    "MistalAIEmbeddings, MistralAIEmbeddings, NVIDIAEmbeddings, OllamaEmbeddings, VertexAIEmbeddings, "
    "vLLMEmbeddings, WatsonxEmbeddings",
    "VectorStore": "AstraDB, AstraDBVectorStore, AstraVectorStore, AstraDBGraph, AstraDBGraphVectorStore, "
    "AstraGraphVectorStore, "
    "Cassandra, CassandraVectorStore, CassandraGraph, CassandraGraphVectorStore, Chroma, ChromaVectorStore, "
    "Clickhouse, ClickhouseVectorStore, Couchbase, CouchbaseVectorStore, Elasticsearch, ElasticsearchVectorStore, "
    "FAISS, FaissVectorStore, HCD, HCDVectorStore, LocalDB, Milvus, MilvusVectorStore, MongoDBAtlasVector, "
    "MongoVectorStore, OpenSearch, OpenSearchVectorStore, pgvector, PGVectorStore, Pinecone, PineconeVectorStore, "
    "QdrantVectorStore, Redis, RedisVectorStore, SupabaseVectorStore, Upstash, UpstashVectorStore, Vectara, "
    "VectaraVectorStore, Weaviate, WeaviateVectorStore",
    "Knowledge": "Knowledge, KnowledgeBase, KnowledgeRetrieval, KBRetrieval",
    "KnowledgeIngestion": "KnowledgeIngestion, KBIngestion",
    "File": "File",
    "SplitText": "SplitText, CharacterTextSplitter, RecursiveCharacterTextSplitter, LanguageRecursiveTextSplitter, "
    "NaturalLanguageTextSplitter, SemanticTextSplitter",
    "Agent": "Agent",
    "StructuredOutput": "StructuredOutput",
    "Memory": "Memory",
    "MemoryBase": "MemoryBase",
    "StoreMessage": "StoreMessage, MessageStore",
    "Parser": "Parser",
    "ParseData": "ParseData",
    "ParseDataFrame": "ParseDataFrame",
    "ParseJSONData": "ParseJSONData",
    "Calculator": "Calculator, CalculatorTool",
    "SQL": "SQL, SQLExecutor",
    "ConditionalRouter": "ConditionalRouter",
    "SmartRouter": "SmartRouter",
    "Loop": "Loop",
    "BatchRun": "BatchRun",
    "RunFlow": "RunFlow",
    "SubFlow": "SubFlow",
    "CombineText": "CombineText",
    "CreateList": "CreateList",
    "MessageToData": "MessagetoData",
    "TypeConverter": "TypeConverter",
    "DataToDataFrame": "DataToDataFrame",
    "SelectData": "SelectData",
    "ExtractKey": "ExtractaKey, ExtractDataKey",
    "FilterData": "FilterData",
    "MergeData": "MergeData",
    "RegexExtractor": "RegexExtractor",
    "JSONCleaner": "JSONCleaner",
    "TextOperations": "TextOperations",
    "Operations": "Operations",
    "Pass": "Pass, PassMessage",
    "CurrentDate": "CurrentDate",
    "Listen": "Listen",
    "Notify": "Notify",
}

_EXTENSION: Final = re.compile(r"ext:[^:]*:([A-Za-z0-9_]+)(?:@.*)?")


def simple(name: str) -> str:
    """A name as names are compared."""
    letters = "".join(char for char in name[:256].lower() if char.isascii() and char.isalnum())
    return letters.removesuffix("component") or letters


KINDS: Final[dict[str, str]] = {simple(name): kind for kind, names in _NAMES.items() for name in names.split(", ")}


def kind_of(written: str, module: Any = None, class_name: Any = None) -> str:
    """The kind of a component by the type that is written, or by its class; empty where none is known."""
    extension = _EXTENSION.fullmatch(written[:256])
    names = [extension[1] if extension else written]
    if isinstance(class_name, str):
        names.append(class_name)
    if isinstance(module, str):
        names.append(module.rpartition(".")[2])
    return next((KINDS[simple(name)] for name in names if simple(name) in KINDS), "")
