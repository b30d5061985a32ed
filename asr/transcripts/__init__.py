"""Transcripts in and out of files: text, JSON, subtitles, CTM, TextGrid, trn."""
