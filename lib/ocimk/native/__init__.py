"""The only C: raw system calls for Python, and the image that waits between create and start."""
