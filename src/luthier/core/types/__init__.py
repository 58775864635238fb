"""What flows through Luthier: Example -> TokenTree -> Batch -> Output -> Loss. Every class is frozen."""
