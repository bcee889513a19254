"""Studies: a space and a design each, data rather than logic."""
