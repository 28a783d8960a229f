"""Words, stems and stop words: text to the terms that are compared. Pure."""
