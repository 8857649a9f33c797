//! How are other servers talked to? HTTP with TLS, authentication, proxies.
