"""One build, in files or in a database: opened, searched by words and by meaning, and swapped for the next. Alone knows faiss."""
