"""User interfaces: the command line and the web pages; argument handling and output, no logic."""
