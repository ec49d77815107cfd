"""Data on its way into models: lists of samples, preprocess scripts, input formats; and files on their way out."""
