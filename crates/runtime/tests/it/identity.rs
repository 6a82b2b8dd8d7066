//! Users and groups looked up in the image.

use runtime::{Identity, Stage};
use serde_json::json;

use crate::harness::Bundle;

fn user(text: &str, groups: &[&str]) -> Bundle {
    let mut bundle = Bundle::new();
    bundle.spec.process.as_mut().unwrap().user.username = text.to_owned();
    bundle.identity = Identity::Lookup { groups: groups.iter().map(|group| (*group).to_owned()).collect() };
    bundle
}

#[test]
fn names_are_those_of_the_image() {
    let ids = "id -u; id -g; id -G";
    assert_eq!(user("alice", &[]).output(ids), "1000\n1000\n1000 50000");
    assert_eq!(user("alice:root", &[]).output(ids), "1000\n0\n0");
    assert_eq!(user("7:8", &["secret", "9"]).output(ids), "7\n8\n8 9 50000");
    assert_eq!(user("", &[]).output(ids), "0\n0\n0");
}

#[test]
fn unknown_names_are_told_in_docker_s_words() {
    let error = user("nobody", &[]).refused("true");
    assert_eq!(
        (error.stage, error.message.as_str()),
        (Stage::User, "unable to find user nobody: no matching entries in passwd file")
    );
    for text in ["-1", "0x0", "+0", "4294967296", "4294967295"] {
        user(text, &[]).refused("true");
    }
}

/// CVE-2022-36109: without the image's groups a file that shuts its group out could be read.
#[test]
fn groups_of_the_image_shut_out_what_they_shut_out() {
    let bundle = user("alice", &[]);
    let file = bundle.root().join("tmp/file");
    std::fs::write(&file, "secret").unwrap();
    std::os::unix::fs::chown(&file, Some(0), Some(50000)).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o604)).unwrap();
    assert_eq!(bundle.output("cat /tmp/file 2>/dev/null; echo $?"), "1");
}

#[test]
fn numbers_of_the_configuration_need_no_file() {
    let bundle = Bundle::new().edit(|spec| {
        spec["process"]["user"] = json!({ "uid": 5, "gid": 6, "additionalGids": [7, 8], "username": "alice" })
    });
    assert_eq!(bundle.output("id -u; id -g; id -G"), "5\n6\n6 7 8");
}
