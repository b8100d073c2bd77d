"""The project's version, which all code reads from here; CITATION.cff and CHANGELOG.md must name the same."""

VERSION = "0.5.0"
