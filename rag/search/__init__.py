"""One build, in files or in PostgreSQL: opened, searched by words and by meaning, swapped. Alone knows faiss."""
