"""From episodes to a gradient step: credit, losses, algorithms."""
