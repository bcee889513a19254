"""Studies: trials without Ray, their store, the launchers, and the command line."""
