"""Exporting models to formats that other software reads."""
