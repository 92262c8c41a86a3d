"""Web pages: each application is created by a function that takes the data to serve."""
