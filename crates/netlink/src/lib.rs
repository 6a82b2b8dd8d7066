//! Route netlink: the messages and sockets that Conex needs.
