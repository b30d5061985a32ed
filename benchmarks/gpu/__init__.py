"""The GPU kit: what the first ten minutes on a GPU must answer, in one command. README.md says how."""
