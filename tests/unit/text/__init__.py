"""Tests of `rag/text`."""
