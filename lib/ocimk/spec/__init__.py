"""What the OCI Runtime Specification says: no system call is made here."""
