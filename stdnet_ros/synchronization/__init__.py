"""Pairs colour and depth images by their stamps, and handles clock jumps."""
