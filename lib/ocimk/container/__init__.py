"""The container as a folder of files: state, ledger, lock, barrier, watch."""
