"""Typing errors in questions, forgiven by the words that a build's own passages have."""
