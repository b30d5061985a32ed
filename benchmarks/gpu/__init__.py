"""The GPU kit: what the first ten minutes on a GPU must answer, in one command; see README.md."""
