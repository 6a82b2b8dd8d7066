//! cgroup v1, hybrid and v2: creation, limits, statistics, freezer, devices.
