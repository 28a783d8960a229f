"""Tests of `rag/llm`."""
