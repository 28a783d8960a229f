"""Tests of `rag/telemetry`."""
