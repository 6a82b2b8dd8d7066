//! Options of netlink sockets.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::Result;
use crate::raw::check;

const SOL_NETLINK: libc::c_int = 270;

/// An on-off option of a netlink socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetlinkOption {
    /// `NETLINK_CAP_ACK`: acknowledgements do not repeat the request.
    CapAck,
    /// `NETLINK_EXT_ACK`: errors come with the kernel's own words.
    ExtAck,
    /// `NETLINK_GET_STRICT_CHK`: dumps honour the filters in their header instead of ignoring them.
    StrictCheck,
}

impl NetlinkOption {
    fn number(self) -> libc::c_int {
        match self {
            Self::CapAck => 10,
            Self::ExtAck => 11,
            Self::StrictCheck => 12,
        }
    }
}

/// Switches `option` on for the netlink socket `fd`.
pub fn enable(fd: BorrowedFd<'_>, option: NetlinkOption) -> Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: pointer and length of one integer that lives through the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            SOL_NETLINK,
            option.number(),
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    check(result.into()).map(drop)
}
