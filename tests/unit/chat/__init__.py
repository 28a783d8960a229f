"""Tests of `rag/chat`."""
