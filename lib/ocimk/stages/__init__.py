"""One module per lifecycle step, all with the same four verbs."""
