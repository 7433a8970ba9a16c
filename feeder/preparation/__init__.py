"""Data preparation: raw recordings become the arrays that training reads."""
