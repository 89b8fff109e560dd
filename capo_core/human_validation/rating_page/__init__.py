"""The page on which raters answer: one HTML file that needs no server."""
