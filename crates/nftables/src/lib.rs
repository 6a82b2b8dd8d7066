//! Rulesets as values, and the netlink transaction that installs them.
