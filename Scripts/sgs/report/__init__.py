"""What the tools tell about models and results, as values and text."""
