"""Penstock's services as LangChain components. Needs langchain-core: pip install 'penstock[langchain]'.

    retriever = PenstockRetriever(target="127.0.0.1:50051", collection="wiki", top_k=5)
    model = PenstockChatModel(target="127.0.0.1:50052", max_tokens=128)
    flow = PenstockFlow(target="127.0.0.1:50050", flow="rag", output="answer")

Each works from async and from sync code, connects with its first call, and is closed by `with`, `async with`, `close()`,
`aclose()`, or by being forgotten. Failures are raised as penstock.errors classes.
"""

try:
    import langchain_core  # noqa: F401  # Only to say what to install where it is missing.
except ImportError as error:
    message = "penstock.clients.langchain needs langchain-core, which is not installed: pip install 'penstock[langchain]'"
    raise ImportError(message) from error

from penstock.clients.langchain.chat_model import PenstockChatModel
from penstock.clients.langchain.flow import PenstockFlow
from penstock.clients.langchain.retriever import PenstockRetriever

__all__ = ["PenstockChatModel", "PenstockFlow", "PenstockRetriever"]
