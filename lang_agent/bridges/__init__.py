"""Formats and trainers of others; nothing else of the package imports these."""
