//! Session keyrings.

use std::ffi::CStr;

use crate::Result;
use crate::raw::check;

const JOIN_SESSION_KEYRING: libc::c_int = 1;
const SET_PERMISSIONS: libc::c_int = 5;
const DESCRIBE: libc::c_int = 6;

/// Gives the process a new session keyring of this name and returns its serial number.
pub fn join_session(name: &CStr) -> Result<i32> {
    // SAFETY: the name is NUL-terminated and lives over the call.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) }).map(|serial| serial as i32)
}

/// The permission mask of a key.
pub fn permissions(serial: i32) -> Result<u32> {
    let mut text = [0u8; 256];
    // SAFETY: the kernel writes at most the length given.
    check(unsafe { libc::syscall(libc::SYS_keyctl, DESCRIBE, serial, text.as_mut_ptr(), text.len()) })?;
    let text = std::str::from_utf8(&text).unwrap_or_default();
    let mask = text.split(';').nth(3).unwrap_or_default();
    u32::from_str_radix(mask, 16).map_err(|_| crate::Errno::INVAL)
}

/// Sets the permission mask of a key.
pub fn set_permissions(serial: i32, mask: u32) -> Result<()> {
    // SAFETY: integer arguments.
    check(unsafe { libc::syscall(libc::SYS_keyctl, SET_PERMISSIONS, serial, mask) }).map(drop)
}
