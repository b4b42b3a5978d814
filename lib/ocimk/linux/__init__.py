"""The kernel, thin and without policy: one module per kernel interface. Nothing here knows of OCI."""
