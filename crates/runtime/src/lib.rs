//! The OCI runtime: namespaces, mounts, root file system, capabilities, init, exec, hooks and state.
