"""Suites: what is measured. Each test asks one question; `pytest suites/` asks all of them."""
