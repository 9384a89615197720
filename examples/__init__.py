"""Worked examples of gaussjax."""
