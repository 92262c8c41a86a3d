"""Who works on the chunks of a run: this machine, or a cluster."""
