"""Methods × data sets → tables and reports."""
