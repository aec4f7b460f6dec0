"""What is written for a scan: NPZ and pictures, each file whole or not at all."""
