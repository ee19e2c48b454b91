"""Whole folders: what is to be done, doing it in one process, several or a cluster, and the record of what is done."""
