"""From a gradient profile to a layer plan; ``policy_table`` lists the policies."""
