"""Who said what, and everything else that outlives a request, in SQLite, Redis or PostgreSQL."""
