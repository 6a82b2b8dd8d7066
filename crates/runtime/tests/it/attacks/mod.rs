//! Published attacks on container runtimes, as hostile images, configurations and neighbours.
//!
//! Each test builds the attack itself and looks at a canary outside of the container. Its comment says without which defence it fails, as
//! it was seen to do. Where the attack needs the runtime's program or the whole engine, the test is there.
//!
//! | attack | test |
//! |---|---|
//! | CVE-2016-9962 | `processes::a_joining_process_shows_nothing_of_the_host`, `processes::a_joining_process_cannot_be_traced`, `processes::a_joining_container_cannot_be_traced`, `processes::a_container_that_waits_holds_nothing_of_the_host` |
//! | CVE-2018-20699 | `configurations::lists_of_processors_take_no_memory`, compat `attacks::` |
//! | CVE-2019-5736 | oci-conformance `attacks::`, compat `attacks::` |
//! | CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-54867 | `paths::proc_and_sys_must_be_ordinary_directories`, `paths::nothing_but_a_procfs_is_mounted_on_proc`, compat `attacks::` |
//! | CVE-2020-14386, CVE-2022-0185, CVE-2026-31431 | `seccomp` unit tests, compat `attacks::` |
//! | CVE-2020-15257 | compat `attacks::` |
//! | CVE-2021-30465, CVE-2024-45310 | `races::a_swapped_destination_leads_nowhere_outside` |
//! | CVE-2021-43784 | `configurations::absurd_sizes_are_errors` |
//! | CVE-2022-0492 | `configurations::no_control_group_can_be_released_into_the_host` |
//! | CVE-2022-0811 | `configurations::parameters_are_single_values`, `sysctl` unit tests, compat `attacks::` |
//! | CVE-2022-24769, CVE-2022-27649, CVE-2022-29162, CVE-2025-27612 | `process::capabilities_are_those_asked_for_and_none_is_inheritable`, `exec::its_streams_are_all_that_is_open`, compat `security::` |
//! | CVE-2022-2989, CVE-2022-2990, CVE-2022-2995, CVE-2022-36109, CVE-2023-25173 | `identity::groups_of_the_image_shut_out_what_they_shut_out`, compat `attacks::` |
//! | CVE-2022-23648 | compat `attacks::` |
//! | CVE-2023-25809 | `configurations::control_groups_are_read_only_without_a_namespace` |
//! | CVE-2024-21626 | `paths::no_working_directory_is_outside_the_root` and the two after it |
//! | CVE-2024-40635, CVE-2024-9676, CVE-2026-46680, CVE-2026-47262 | `configurations::hostile_user_files_are_errors`, `users` unit tests, compat `attacks::` |
//! | CVE-2025-24965 | `paths::files_bound_over_links_stay_inside`, compat `attacks::` |
//! | CVE-2025-31133, CVE-2025-62161 | `paths::masking_needs_the_real_null_device`, `races::a_swapped_null_device_masks_nothing_else` |
//! | CVE-2025-47291 | `configurations::a_user_namespace_does_not_leave_the_control_group` |
//! | CVE-2025-52565 | `paths::the_console_is_bound_by_descriptor`, `paths::terminals_come_from_a_devpts_only` |
//! | CVE-2025-52881, CVE-2025-62596 | `configurations::parameters_are_set_behind_what_is_mounted_over_them` |
//! | CVE-2026-30892 | `users` unit tests, the command line's unit tests, compat `attacks::` |
//! | CVE-2026-41579, CVE-2026-47766 | `paths::dev_is_not_made_through_a_link` |

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::Bundle;

mod configurations;
mod paths;
mod processes;
mod races;

fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).unwrap().next().is_none()
}

/// The canary as a link in a root would name it: both lie in one folder.
fn target_of(canary: &Path, relative: bool) -> PathBuf {
    if relative { Path::new("../..").join(canary.file_name().unwrap()) } else { canary.to_owned() }
}

fn replace_by_link(bundle: &Bundle, name: &str, target: &Path) {
    let path = bundle.root().join(name);
    if path.is_dir() {
        std::fs::remove_dir_all(&path).unwrap();
    } else if path.exists() {
        std::fs::remove_file(&path).unwrap();
    }
    symlink(target, path).unwrap();
}

/// Takes out the mounts at `/dev` and below, so that the image's own directory is there.
fn keep_the_images_dev(spec: &mut Value) {
    let mounts = spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
}
