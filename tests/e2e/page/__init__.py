"""The page: one service for all modules of this folder. A package, since that is what fixtures can be shared by."""
