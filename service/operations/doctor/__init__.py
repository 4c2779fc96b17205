"""`kotrain doctor`: checks an installation and suggests fixes."""
