"""All that knows a network: its layers and loss, how it is trained, how it is stored."""
