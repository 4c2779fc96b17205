"""Figures of the page, drawn without pyplot, so that pages share no state."""
