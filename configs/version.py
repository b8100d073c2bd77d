"""This project's version, in the one place that code reads it from; CITATION.cff and CHANGELOG.md name the same."""

VERSION = "0.5.0"
