//! `linux.resources`: whatever is asked for, writes go to files of the cgroup itself.
#![no_main]

use oci::runtime::LinuxResources;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(resources) = serde_json::from_slice::<LinuxResources>(data) {
        cgroups::fuzzing::limits(&resources);
    }
});
