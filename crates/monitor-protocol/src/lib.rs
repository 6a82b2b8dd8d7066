//! Messages between the daemon and a container's monitor, and their framing.
