"""Explore, shrink, replay and prove the order of switches of a program of fibers."""
