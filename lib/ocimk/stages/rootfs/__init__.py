"""The parts of oci-mount: a container's root filesystem, made by descriptor."""
