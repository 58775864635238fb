"""Prompts -> text: batches of requests, sampling, whole characters."""
