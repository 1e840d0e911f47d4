"""Any Gymnasium world as an environment of text: worlds, renderers, prompts, parsing."""
