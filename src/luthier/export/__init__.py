"""What others load: models merged with their adapters."""
