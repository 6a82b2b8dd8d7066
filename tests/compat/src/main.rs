//! What a Docker user sees, tested through real clients.
