//! The runtime alone, against the OCI specification.
