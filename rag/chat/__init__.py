"""The story of a question, from the visitor's words to a checked answer. Knows no HTTP."""
