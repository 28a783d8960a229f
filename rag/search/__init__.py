"""One build on disk: opened, searched by words and by meaning, and swapped for the next. Alone knows faiss."""
