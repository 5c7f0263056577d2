"""Campaigns at an institution: whom the model chose is held against chance and against a control group. Nothing of it leaves."""
