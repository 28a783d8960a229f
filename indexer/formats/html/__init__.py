"""HTML: what is kept of a page, and its text as blocks."""
