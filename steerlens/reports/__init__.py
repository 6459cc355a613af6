"""Reports: page data in, one self-contained HTML file out."""
