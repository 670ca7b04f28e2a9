"""Networks as pure linen modules: `init` and `apply`, plain typed fields, no configuration objects."""

from amt.models import dinov2

__all__ = ["dinov2"]
