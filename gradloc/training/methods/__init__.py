"""Training methods that compose with any plan, one module each; ``method_table`` lists them.

To add one, write a frozen dataclass on ``base.Method`` and enter it in ``method_table.METHODS``,
or name it in a recipe by its import path.
"""
