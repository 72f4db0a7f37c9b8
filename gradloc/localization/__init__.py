"""Where new facts pull: gradients, profiles, selection policies, plans and what they cost."""
