"""The house: a ground floor and nine rooms. A test holds who may enter whom.

    ground  ◀  search, llm, stores, telemetry, documents  ◀  access  ◀  chat  ◀  http  ◀  rag_server.py

ground      errors, types, settings, api_keys, deadline, protocols (what is asked of a model), calls, text/
search      one build on disk: opened, searched by words and by meaning, swapped for the next
llm         what embeds and what answers
stores      who said what, and everything else that outlives a request
documents   what was uploaded, and the process that works on it
telemetry   logs, metrics, traces
access      who is calling, what they may do, and how often
chat        the story of a question; read `chat/pipeline.py` first
http        HTTP in, JSON or events out
ops         the process: checks before the start, the gunicorn worker, backups; may use all below http

An arrow never points back, and the five on one floor do not know each other. The indexer uses all
up to access, for what uploads cost.
"""
