"""What the owner learns from questions: a log without who asked, and what the site does not answer."""
