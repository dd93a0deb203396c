"""One table and the formats it is printed in: terminal, CSV, JSON, Markdown, LaTeX."""
