"""What runs beside the scanner: bundles, engines, certificates, the model."""
