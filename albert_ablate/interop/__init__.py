"""Import and export of weights and tokenizers of other libraries."""
