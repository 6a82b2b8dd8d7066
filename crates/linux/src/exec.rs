//! Replacing the program of a process.

use std::ffi::{CStr, CString, OsString, c_char};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::raw::last_errno;
use crate::{Errno, Result};

/// A list of strings in the form that execve takes, made before it is needed.
///
/// The pointers are into heap blocks of the `CString`s, which do not move when the list does.
pub struct CStringList {
    strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl std::fmt::Debug for CStringList {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.strings.fmt(formatter)
    }
}

impl CStringList {
    /// Builds the list; `None` where a string has a NUL inside.
    pub fn new<'a>(strings: impl IntoIterator<Item = &'a str>) -> Option<CStringList> {
        let strings: Vec<CString> = strings.into_iter().map(|text| CString::new(text).ok()).collect::<Option<_>>()?;
        let pointers = strings.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect();
        Some(CStringList { strings, pointers })
    }

    /// As [`CStringList::new`], from strings of the operating system.
    pub fn from_os(strings: impl IntoIterator<Item = OsString>) -> Option<CStringList> {
        use std::os::unix::ffi::OsStringExt;
        let strings: Vec<CString> =
            strings.into_iter().map(|text| CString::new(text.into_vec()).ok()).collect::<Option<_>>()?;
        let pointers = strings.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect();
        Some(CStringList { strings, pointers })
    }

    /// The strings.
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }
}

/// Runs the program at `path`; returns only the error.
pub fn execve(path: &CStr, arguments: &CStringList, environment: &CStringList) -> Errno {
    // SAFETY: both lists are NULL-terminated arrays of NUL-terminated strings which live over the call.
    unsafe { libc::execve(path.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    last_errno()
}

/// Runs the program that `file` is open on; returns only the error.
///
/// A script cannot be run this way when `file` is close-on-exec.
pub fn execve_fd(file: BorrowedFd<'_>, arguments: &CStringList, environment: &CStringList) -> Errno {
    let (arguments, environment) = (arguments.pointers.as_ptr(), environment.pointers.as_ptr());
    // SAFETY: as for execve; the empty path is a literal with its NUL.
    unsafe {
        libc::syscall(libc::SYS_execveat, file.as_raw_fd(), c"".as_ptr(), arguments, environment, libc::AT_EMPTY_PATH);
    }
    last_errno()
}

/// Sets the execution domain; `0xffffffff` only asks. Returns the one before.
pub fn personality(domain: u64) -> Result<u64> {
    // SAFETY: an integer argument.
    crate::raw::check(unsafe { libc::syscall(libc::SYS_personality, domain) }).map(|old| old as u64)
}
