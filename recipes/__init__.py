"""The configurations that the results were made with, for ``--config recipes/NAME.yaml``."""
