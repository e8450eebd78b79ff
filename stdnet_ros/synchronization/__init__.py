"""Which colour image belongs to which depth image, and what a jump of the clock does to both."""
