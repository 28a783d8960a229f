"""A site followed from page to page, within what its robots.txt allows."""
