"""The experiments of the ActAdd paper (Turner et al., arXiv 2308.10248), one file each."""
