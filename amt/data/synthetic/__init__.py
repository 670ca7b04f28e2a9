"""The synthetic generator: a hand grasping YCB-sized objects on a table, written in the DexYCB layout."""
