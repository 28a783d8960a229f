"""Where builds are kept: in files or in a database, behind one protocol."""
