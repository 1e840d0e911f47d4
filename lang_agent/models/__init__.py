"""Language models as policies: loading, scoring phrases, writing, saving."""
