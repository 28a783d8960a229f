"""The usual assembly: FastAPI, AzureChatOpenAI, FAISS and a chain; as most guides show it, and in its better form.

`blocking` calls the chain inside the async handler, so that a worker answers one visitor at a time; `awaiting` awaits
it. It runs in an interpreter of its own and knows nothing of the product; the passages come from a file of texts and
one of vectors, so that both search the same.

    gunicorn --worker-class uvicorn_worker.UvicornWorker benchmarks.peers.assembly:blocking
"""

import json
import os
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from fastapi import FastAPI
from langchain_community.docstore.in_memory import InMemoryDocstore
from langchain_community.vectorstores import FAISS
from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_openai import AzureChatOpenAI, AzureOpenAIEmbeddings
from pydantic import BaseModel

FOLDER = Path(os.environ["PEERS_FOLDER"])
PROMPT = (
    "Answer from the sources, and cite them by their numbers in square brackets.\n\n{context}\n\nQuestion: {question}"
)
PASSAGES = 5


class Question(BaseModel):
    message: str


def _store(embeddings: AzureOpenAIEmbeddings) -> FAISS:
    texts = json.loads((FOLDER / "texts.json").read_text("utf-8"))
    vectors = np.load(FOLDER / "vectors.npy", allow_pickle=False)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    documents = {str(row): Document(page_content=text) for row, text in enumerate(texts)}
    rows = {row: str(row) for row in range(len(texts))}
    return FAISS(embeddings, index, InMemoryDocstore(documents), rows)


def _joined(documents: list[Document]) -> str:
    return "\n\n".join(f"[{number}] {one.page_content}" for number, one in enumerate(documents, start=1))


def _chain() -> Any:
    azure = {"azure_endpoint": os.environ["PEERS_AZURE"], "api_key": os.environ["PEERS_KEY"]}
    version = {"api_version": os.environ["PEERS_VERSION"]}
    # Without this the texts are cut into tokens first, by tables that are fetched over the network.
    embeddings = AzureOpenAIEmbeddings(
        azure_deployment=os.environ["PEERS_EMBEDDINGS"], check_embedding_ctx_length=False, **azure, **version
    )
    model = AzureChatOpenAI(
        azure_deployment=os.environ["PEERS_CHAT"], temperature=0.1, max_tokens=1000, **azure, **version
    )
    retriever = _store(embeddings).as_retriever(search_kwargs={"k": PASSAGES})
    asked = {"context": retriever | _joined, "question": RunnablePassthrough()}
    return asked | ChatPromptTemplate.from_template(PROMPT) | model | StrOutputParser()


chain = _chain()
blocking = FastAPI()
awaiting = FastAPI()


@blocking.post("/chat")
async def chat_blocking(question: Question) -> dict[str, str]:
    return {"response": chain.invoke(question.message)}


@awaiting.post("/chat")
async def chat_awaiting(question: Question) -> dict[str, str]:
    return {"response": await chain.ainvoke(question.message)}
