"""Readers fed with damaged files: whatever comes, a message that names the file, soon."""
