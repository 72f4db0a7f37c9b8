"""What a plan will cost: step time and memory against full training, predicted.

No model is measured; ``machine.calibrate`` times the machine alone.
"""
