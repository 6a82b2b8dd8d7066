//! TLS for the API's TCP sockets: the one place where the cryptography is chosen.
