//! Data types of the OCI runtime and image specifications, digests and image references.
