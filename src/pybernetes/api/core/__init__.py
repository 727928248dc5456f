"""The kinds of core/v1: one module per kind or family, and what several components ask about them."""
