//! Seccomp profiles: whatever is in them, the compiler answers with a program or an error.
#![no_main]

use std::collections::BTreeSet;

use oci::runtime::Arch;
use seccomp::{Conditions, KernelVersion, Profile};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(profile) = Profile::parse(text) else { return };
    let capabilities: BTreeSet<String> = BTreeSet::from(["CAP_SYS_ADMIN".to_owned()]);
    for arch in [Arch::X86_64, Arch::Aarch64, Arch::S390x] {
        let conditions = Conditions { capabilities: &capabilities, arch, kernel: KernelVersion::new(6, 12) };
        if let Ok(Some(filter)) = profile.compile(&conditions) {
            assert!((1..=4096).contains(&filter.instruction_count()));
        }
    }
});
