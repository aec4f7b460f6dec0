"""Commands that make or check the project's numbers; run them from a checkout, `python -m benchmarks.NAME`."""
