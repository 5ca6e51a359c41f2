"""The network, its scalings, and its files."""
