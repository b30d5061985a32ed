"""Lists of utterances: a recording, or a part of it, with its text; read, checked, written, converted."""
