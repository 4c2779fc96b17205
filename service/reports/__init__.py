"""Reports of a comparison: a page to read, rows for a spreadsheet, a table for a paper."""
