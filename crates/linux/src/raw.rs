//! What the raw calls of this crate share: turning a return value into a result.

/// An error number of the kernel.
pub use rustix::io::Errno;

/// The result of a system call.
pub type Result<T> = std::result::Result<T, Errno>;

/// Makes a result of what `libc::syscall` and its kin return: -1 with `errno` set, or a value.
pub(crate) fn check(value: libc::c_long) -> Result<libc::c_long> {
    if value == -1 { Err(last_errno()) } else { Ok(value) }
}

/// The `errno` of the libc call just made on this thread.
pub(crate) fn last_errno() -> Errno {
    let code = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    Errno::from_raw_os_error(code)
}
