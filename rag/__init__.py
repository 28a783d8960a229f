"""The server's rooms, lowest rank first. A module imports strictly lower ranks, never a sibling; a test holds that.

values, pure functions     errors, models, setting_types, settings, text, stopwords, resilience, fusion, prompt,
                           access, refusals (what is learned from them)
what answers may show      citations, above code_blocks, markdown_patterns, addresses and citation_marks
the index on disk          builds (files), lexical (words), vector_db (one build, open), live_index (the one served)
what embeds and answers    upstream (calls), azure_openai (wire format), local_embedder, local_models (without network)
shared between workers     state (SQLite and steady time), sqlite_conversations, feedback, sqlite_limits, rate_limits
shared between servers     redis_link (how Redis is reached), redis_conversations, redis_limits
the story of a question    retrieval, chat
HTTP in, events out        routes
told to operators          telemetry (logs, stages), metrics, tracing (optional)
the process                preflight (checks before the start), worker and connections (under gunicorn)
"""
