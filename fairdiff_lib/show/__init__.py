"""Tables in; figures, words and cards out."""
