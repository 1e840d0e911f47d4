"""Rewards of text, and the rubric that weighs them."""
