"""Files found, each read in a process that may fail, and settled as a document with its address and language."""
