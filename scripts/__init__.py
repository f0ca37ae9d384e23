"""What people type: the verbs of the `seqroof` command and the entry points of the repository."""
