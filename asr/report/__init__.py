"""An evaluation as an HTML page: errors to read, see, hear. `asr.scoring.results` writes text and JSON."""
