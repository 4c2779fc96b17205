"""Code that users upload: what a file declares, its stored versions, and the names by which jobs refer to them."""
