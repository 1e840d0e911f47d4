"""How good an agent is on held-out seeds, and pictures of it."""
