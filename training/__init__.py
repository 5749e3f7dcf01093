"""How a network is trained, stored and resumed."""
