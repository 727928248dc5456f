"""Admission by webhooks: what somebody outside makes of a write, and whether they allow it.

`matching` decides which webhooks a write concerns, `review` builds the question and reads the
answer, `client` carries them over HTTPS, `mutating` and `validating` are the two plugins.
"""

from __future__ import annotations

from pybernetes.apiserver.admission.webhooks.mutating import MutatingWebhooks
from pybernetes.apiserver.admission.webhooks.validating import ValidatingWebhooks

__all__ = ["MutatingWebhooks", "ValidatingWebhooks"]
