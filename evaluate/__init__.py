"""Scoring of generated talking-face videos under named protocols."""
