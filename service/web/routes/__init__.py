"""Routes: parse the request, call one function, return its result."""
