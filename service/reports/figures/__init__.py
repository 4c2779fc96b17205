"""Figures of the page, drawn by matplotlib's Figure alone: nothing here is shared between two pages."""
