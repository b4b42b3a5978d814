"""The command line: one table of commands, the fast parser that every call goes through, the face for people."""
