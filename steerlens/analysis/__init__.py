"""Numbers and pictures of steering: metrics, sweeps, shifts, statistics, figures and the HTML report."""
