"""Runs: sweeps, their store and resume, the cluster."""
