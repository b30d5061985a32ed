"""HTML pages that open from disk: their templates, styles and scripts."""
