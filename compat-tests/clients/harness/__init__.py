"""What the compatibility tests share: client generations, servers to talk to, and counting of results."""
