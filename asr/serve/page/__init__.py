"""The page: HTML, style and scripts, which load nothing from elsewhere."""
