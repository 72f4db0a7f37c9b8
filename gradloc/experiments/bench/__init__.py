"""What a plan saves on this machine: time and memory of real Trainer steps, arm against arm.

Comes in: a model and a choice of arms. Goes out: ratios to full training with intervals, as a
table, a JSON file and a picture. It judges nothing but cost: what is learned is not looked at.
"""
