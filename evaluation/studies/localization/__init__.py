"""Whether new and updated facts pull at other layers than known facts do."""
