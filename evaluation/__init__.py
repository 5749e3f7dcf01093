"""How predictions are measured, and the rules that they have to beat."""
