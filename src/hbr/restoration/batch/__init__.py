"""Many photos: which go where, restored one by one or on a cluster, with a record for each."""
