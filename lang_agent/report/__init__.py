"""What was played and learned, as one page to look at: see docs/report.md."""
