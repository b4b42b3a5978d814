"""The plans of the dispatcher: which stages run in which order."""
