//! What do clients ask? The HTTP API: requests in, JSON out.
