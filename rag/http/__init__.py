"""HTTP in, JSON or events out: a route checks what came, calls a room below, and spells what it says."""
