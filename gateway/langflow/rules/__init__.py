"""The mapping rules: what becomes of a component of each kind. A new one is a function and a line in RULES."""

from typing import Final

from gateway.langflow.place import Rule
from gateway.langflow.rules.agents import agent
from gateway.langflow.rules.control import batch_run, conditional_router, run_flow, smart_router
from gateway.langflow.rules.ends import chat_input, chat_output, file, text_input, text_output, webhook
from gateway.langflow.rules.history import memory, store_message
from gateway.langflow.rules.models import model
from gateway.langflow.rules.prompts import prompt
from gateway.langflow.rules.retrieval import embedding, vector_store
from gateway.langflow.rules.structured import structured_output
from gateway.langflow.rules.texts import (
    combine_text,
    create_list,
    parse_data,
    parse_dataframe,
    parser,
    regex_extractor,
    split_text,
    text_operations,
)
from gateway.langflow.rules.values import (
    current_date,
    extract_key,
    filter_data,
    json_cleaner,
    listen,
    merge_data,
    notify,
    parse_json_data,
    passed_on,
    select_data,
    type_converter,
)

RULES: Final[dict[str, Rule]] = {
    "ChatInput": chat_input,
    "TextInput": text_input,
    "Webhook": webhook,
    "File": file,
    "ChatOutput": chat_output,
    "TextOutput": text_output,
    "Prompt": prompt,
    "Model": model,
    "Agent": agent,
    "StructuredOutput": structured_output,
    "Embedding": embedding,
    "VectorStore": vector_store,
    "Knowledge": vector_store,
    "MemoryBase": vector_store,
    "Memory": memory,
    "StoreMessage": store_message,
    "Parser": parser,
    "ParseData": parse_data,
    "ParseDataFrame": parse_dataframe,
    "ParseJSONData": parse_json_data,
    "CombineText": combine_text,
    "CreateList": create_list,
    "SplitText": split_text,
    "RegexExtractor": regex_extractor,
    "TextOperations": text_operations,
    "Operations": text_operations,
    "MessageToData": passed_on,
    "DataToDataFrame": passed_on,
    "Pass": passed_on,
    "TypeConverter": type_converter,
    "SelectData": select_data,
    "ExtractKey": extract_key,
    "FilterData": filter_data,
    "MergeData": merge_data,
    "JSONCleaner": json_cleaner,
    "CurrentDate": current_date,
    "Notify": notify,
    "Listen": listen,
    "ConditionalRouter": conditional_router,
    "SmartRouter": smart_router,
    "BatchRun": batch_run,
    "RunFlow": run_flow,
    "SubFlow": run_flow,
}
"""By kind (kinds.py). A loop is not among them: looping.py converts what is in it."""
