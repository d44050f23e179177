"""Penstock's services as LangChain components. Needs `make up` running, and langchain-core."""

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from penstock.clients.langchain import PenstockChatModel, PenstockFlow, PenstockRetriever

QUESTION = "What role does John Elway currently have in the Broncos franchise?"

with (
    PenstockRetriever(target="127.0.0.1:50051", collection="squad", top_k=2) as retriever,
    PenstockChatModel(target="127.0.0.1:50052", max_tokens=64, temperature=0) as model,
    PenstockFlow(target="127.0.0.1:50050", flow="rag", output="answer") as flow,
):
    prompt = ChatPromptTemplate.from_template("{context}\n\nQuestion: {question}")
    chain = {"context": retriever, "question": RunnablePassthrough()} | prompt | model | StrOutputParser()
    print("a chain of ours:", chain.invoke(QUESTION))
    print("the gateway's flow:", flow.invoke({"question": QUESTION}))
