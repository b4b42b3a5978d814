"""ocimk: an OCI container runtime made of small executables wired by files."""

__version__ = "0.1.0"
