"""Markdown and MDX, with what the generators of sites add to them."""
