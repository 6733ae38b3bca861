"""SyncDiff: the network, its training and the generation of videos."""
