//! Who must know? Alert queues to Alertmanagers and webhooks.
