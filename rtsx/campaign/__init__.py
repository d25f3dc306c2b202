"""Campaigns: every cell of a region once, on a cluster that may fail; done, failed and left are known at any time."""
