"""The service beside the scanner: what it has acknowledged it never loses, and delivers once."""
