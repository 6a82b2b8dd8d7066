//! What a filter must know of an architecture.

use oci::runtime::Arch;

use crate::table::{COLUMNS, NONE, TABLE};

/// The bit that marks x32's calls on x86-64.
pub(crate) const X32_BIT: u32 = 0x4000_0000;

const AUDIT_64BIT: u32 = 0x8000_0000;
const AUDIT_LITTLE_ENDIAN: u32 = 0x4000_0000;

/// An architecture that has a column in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) arch: Arch,
    /// `seccomp_data.arch`.
    pub(crate) audit: u32,
    column: usize,
    /// Whether socket and System V calls also come through `socketcall` and `ipc`.
    pub(crate) multiplexes: bool,
}

const TARGETS: [Target; 15] = [
    Target::new(Arch::X86_64, 0, 62 | AUDIT_64BIT | AUDIT_LITTLE_ENDIAN, false),
    Target::new(Arch::X86, 1, 3 | AUDIT_LITTLE_ENDIAN, true),
    // x32 shares x86-64's mark; its numbers have a bit of their own.
    Target::new(Arch::X32, 2, 62 | AUDIT_64BIT | AUDIT_LITTLE_ENDIAN, false),
    Target::new(Arch::Aarch64, 3, 183 | AUDIT_64BIT | AUDIT_LITTLE_ENDIAN, false),
    Target::new(Arch::Arm, 4, 40 | AUDIT_LITTLE_ENDIAN, false),
    Target::new(Arch::Riscv64, 5, 243 | AUDIT_64BIT | AUDIT_LITTLE_ENDIAN, false),
    Target::new(Arch::S390x, 6, 22 | AUDIT_64BIT, true),
    Target::new(Arch::Ppc64le, 7, 21 | AUDIT_64BIT | AUDIT_LITTLE_ENDIAN, true),
    Target::new(Arch::Ppc64, 7, 21 | AUDIT_64BIT, true),
    Target::new(Arch::Ppc, 8, 20, true),
    Target::new(Arch::Mips64, 9, 8 | AUDIT_64BIT, false),
    Target::new(Arch::Mipsel64, 9, 8 | AUDIT_64BIT | AUDIT_LITTLE_ENDIAN, false),
    Target::new(Arch::Mips, 10, 8, true),
    Target::new(Arch::Mipsel, 10, 8 | AUDIT_LITTLE_ENDIAN, true),
    Target::new(Arch::Loongarch64, 11, 258 | AUDIT_64BIT | AUDIT_LITTLE_ENDIAN, false),
];

/// The architecture that this program was built for.
pub const fn native() -> Arch {
    if cfg!(target_arch = "aarch64") {
        Arch::Aarch64
    } else if cfg!(target_arch = "riscv64") {
        Arch::Riscv64
    } else if cfg!(target_arch = "s390x") {
        Arch::S390x
    } else if cfg!(target_arch = "powerpc64") {
        Arch::Ppc64le
    } else if cfg!(target_arch = "loongarch64") {
        Arch::Loongarch64
    } else {
        Arch::X86_64
    }
}

/// All architectures that a filter can be made for.
pub fn architectures() -> impl Iterator<Item = Arch> {
    TARGETS.into_iter().map(|target| target.arch)
}

/// A system call's number on an architecture, as it stands in `seccomp_data.nr`; `None` where the architecture has no such call.
pub fn number(arch: Arch, name: &str) -> Option<u32> {
    Target::of(arch)?.number(row(name)?)
}

/// The place of a name in the table.
pub(crate) fn row(name: &str) -> Option<usize> {
    TABLE.binary_search_by(|(known, _)| (*known).cmp(name)).ok()
}

impl Target {
    const fn new(arch: Arch, column: usize, audit: u32, multiplexes: bool) -> Self {
        assert!(column < COLUMNS, "a column of the table");
        Self { arch, audit, column, multiplexes }
    }

    /// The target of an architecture, if the table has it.
    pub(crate) fn of(arch: Arch) -> Option<Self> {
        TARGETS.into_iter().find(|target| target.arch == arch)
    }

    /// The number of the call in a row of the table.
    pub(crate) fn number(self, row: usize) -> Option<u32> {
        let number = match TABLE[row].1[self.column] {
            NONE => return None,
            number => u32::from(number),
        };
        Some(match self.arch {
            Arch::X32 => number | X32_BIT,
            // The table has 16 bits a number: ARM's private calls, 0xf0001 and on, stand there as 0xf001.
            Arch::Arm if number >= 0xf000 => 0xf_0000 | number & 0xfff,
            _ => number,
        })
    }

    /// Whether arguments are compared with all 64 bits.
    ///
    /// Where registers have 32 bits the upper half is always zero. x32 has wide registers but a 32-bit ABI: like libseccomp, only the
    /// lower half is looked at, which is what the kernel's `int` and `long` parameters of x32 see.
    pub(crate) fn has_wide_arguments(self) -> bool {
        self.audit & AUDIT_64BIT != 0 && self.arch != Arch::X32
    }

    pub(crate) fn is_little_endian(self) -> bool {
        self.audit & AUDIT_LITTLE_ENDIAN != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        assert!(TABLE.is_sorted_by(|(a, _), (b, _)| a < b));
    }

    #[test]
    fn well_known_numbers() {
        for (arch, name, expected) in [
            (Arch::X86_64, "read", Some(0)),
            (Arch::X86_64, "clone3", Some(435)),
            (Arch::X86, "read", Some(3)),
            (Arch::X86, "socketcall", Some(102)),
            (Arch::X32, "read", Some(X32_BIT)),
            (Arch::X32, "execve", Some(X32_BIT | 520)),
            (Arch::Aarch64, "openat", Some(56)),
            (Arch::Aarch64, "open", None),
            (Arch::Arm, "set_tls", Some(0xf_0005)),
            (Arch::S390x, "clone", Some(120)),
            (Arch::Mips, "read", Some(4003)),
            (Arch::X86_64, "nonsense", None),
            (Arch::Parisc, "read", None),
        ] {
            assert_eq!(number(arch, name), expected, "{arch:?} {name}");
        }
    }

    #[test]
    fn this_machine_agrees_about_its_own_numbers() {
        assert_eq!(number(native(), "getpid").is_some(), Target::of(native()).is_some());
    }
}
