"""Two models of a network held against each other, tensor by tensor."""
