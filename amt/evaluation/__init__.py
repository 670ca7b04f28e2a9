"""Evaluation: a data set in, figures out, each beside the baseline that it has to beat."""
