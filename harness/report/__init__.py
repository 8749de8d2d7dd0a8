"""Records and verdicts to text: terminal, page, Markdown, tables. Formats only; arithmetic is in `harness.stats`."""
