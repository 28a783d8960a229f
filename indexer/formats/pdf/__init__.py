"""PDF: words on a page to lines, lines to paragraphs and headings."""
