"""What users import and type: the Python SDK and the command line."""
