"""Networks as pure linen modules: `init` and `apply`, plain typed fields, no configuration objects."""
