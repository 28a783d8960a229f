"""A document cut into passages, each with its sections' anchors, fragments and links."""
