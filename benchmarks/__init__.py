"""Measurements beside other libraries: `make bench`. None of them is a test."""
