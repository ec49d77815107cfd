"""Readers of other frameworks' networks: each turns a model file into a graph."""
