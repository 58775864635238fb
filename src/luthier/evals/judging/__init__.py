"""Answers judged by models or people."""
