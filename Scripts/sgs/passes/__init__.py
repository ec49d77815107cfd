"""Graph rewrites, one file each: a function that edits a graph in place and returns how many rewrites it made."""
