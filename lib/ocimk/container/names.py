"""The names of the files in a container's folder (ocimk-folder(5)), each written once."""

CONFIG = "config.json"
STATE = "state.json"
LEDGER = "ledger"
LOCK = "lock"
FIFO = "exec.fifo"
VERDICT = "exec.status"
CGROUP = "cgroup.json"
MOUNTS = "mounts.json"
NOTIFY = "notify"

CACHE = ".cache"
"""Beside the containers' folders, so that no container can be called so."""

VERSION = 1
"""The version of the folder's format, kept in state.json under "ocimk"; a folder of another version is foreign."""
