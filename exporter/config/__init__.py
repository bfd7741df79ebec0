"""The configuration file, read strictly; every error names the key and what was expected."""
