"""Example -> TokenTree -> Batch: templates, tokens, what is trained, packing, weights."""
