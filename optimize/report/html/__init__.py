"""A run's page as one HTML file: it loads nothing, so it can be mailed, kept and printed.

Charts are Vega-Lite's, drawn into the page as SVG while it is written: a reader needs neither a library nor a network.
"""
