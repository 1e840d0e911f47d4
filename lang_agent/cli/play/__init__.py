"""Playing at the terminal: a person in words, or any agent to watch."""
