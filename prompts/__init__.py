"""Prompt templates: the wording of every prompt, as Jinja2 files and nothing else."""
