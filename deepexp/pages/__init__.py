"""Plots, and HTML pages to put them on."""
