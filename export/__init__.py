"""The workstation's export stage: from a run folder to a bundle. Not part of the installed package."""
