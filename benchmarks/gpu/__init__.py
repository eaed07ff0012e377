"""`make gpu`: what only a GPU can show, part by part, in one report."""
