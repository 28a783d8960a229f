"""HTTP in, JSON or events out. A route checks what came, calls a room below, and spells what it says."""
