//! Kernel parameters that a container may set: those that belong to a namespace of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci::runtime::LinuxNamespaceType;

use crate::error::{Context, Error, Result, Stage};
use crate::procfs::Procfs;

/// Parameters of the IPC namespace that do not have the prefix `fs.mqueue.`.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Refuses every parameter that is not the container's own, and values that are more than one line.
pub(crate) fn check(
    parameters: &BTreeMap<String, String>,
    domain_name: &str,
    own: impl Fn(LinuxNamespaceType) -> bool,
) -> Result<()> {
    for (name, value) in parameters {
        let refused = |why: &str| Err(Error::new(Stage::Spec, format!("sysctl {name:?} {why}")));
        if value.contains(['\n', '\0']) || name.contains(['\n', '\0']) || name.split(['.', '/']).any(str::is_empty) {
            return refused("is malformed");
        }
        let dotted = normalize(name);
        let wanted = match dotted.as_str() {
            "kernel.domainname" if !domain_name.is_empty() && domain_name != value => {
                return refused("conflicts with the domain name of the configuration");
            }
            "kernel.domainname" => LinuxNamespaceType::Uts,
            "kernel.hostname" => return refused("is not allowed as it conflicts with the OCI \"hostname\" field"),
            dotted if IPC.contains(&dotted) || dotted.starts_with("fs.mqueue.") => LinuxNamespaceType::Ipc,
            dotted if dotted.starts_with("net.") => LinuxNamespaceType::Network,
            _ => return refused("is not in a separate kernel namespace"),
        };
        if !own(wanted) {
            return refused("is not allowed in the hosts namespace");
        }
    }
    Ok(())
}

/// Names may be separated by dots or by slashes; the first separator says which, and the other one is then part of a name
/// (`net/ipv4/conf/eth0.100/forwarding`).
fn normalize(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(first) if name.as_bytes()[first] == b'/' => name
            .chars()
            .map(|letter| {
                if letter == '/' {
                    '.'
                } else if letter == '.' {
                    '/'
                } else {
                    letter
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// The file of a parameter below the root of a procfs.
pub(crate) fn file_of(name: &str) -> PathBuf {
    let swapped = |letter| match letter {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path: String = normalize(name).chars().map(swapped).collect();
    PathBuf::from("sys").join(path)
}

/// Sets the parameters in the namespaces of this process.
pub(crate) fn set(parameters: &BTreeMap<String, String>, procfs: &Procfs) -> Result<()> {
    parameters.iter().try_for_each(|(name, value)| {
        procfs
            .write(&file_of(name), value.as_bytes())
            .context(Stage::Properties, || format!("cannot set sysctl {name:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn checked(name: &str, value: &str, own: &[LinuxNamespaceType]) -> Result<()> {
        check(&BTreeMap::from([(name.to_owned(), value.to_owned())]), "", |kind| own.contains(&kind))
    }

    #[test]
    fn only_parameters_of_own_namespaces_pass() {
        use LinuxNamespaceType::{Ipc, Network, Uts};
        let all = [Ipc, Network, Uts];
        for name in [
            "net.ipv4.ip_forward",
            "net/ipv4/conf/eth0.100/forwarding",
            "kernel.sem",
            "fs.mqueue.msg_max",
            "kernel.domainname",
        ] {
            checked(name, "1", &all).unwrap();
            assert!(checked(name, "1", &[]).is_err(), "{name}");
        }
        for name in [
            "kernel.core_pattern",
            "vm.swappiness",
            "kernel.hostname",
            "fs.file-max",
            "netx.y",
            "net..x",
            "",
            "net/../kernel",
        ] {
            assert!(checked(name, "1", &all).is_err(), "{name}");
        }
    }

    #[test]
    fn values_are_one_line() {
        assert!(checked("net.ipv4.ip_forward", "1\nkernel.core_pattern=x", &[LinuxNamespaceType::Network]).is_err());
    }

    #[test]
    fn both_separators_lead_to_the_file() {
        assert_eq!(file_of("net.ipv4.ip_forward"), Path::new("sys/net/ipv4/ip_forward"));
        assert_eq!(file_of("net/ipv4/conf/eth0.100/forwarding"), Path::new("sys/net/ipv4/conf/eth0.100/forwarding"));
        assert_eq!(file_of("net.ipv4.conf.eth0/100.forwarding"), Path::new("sys/net/ipv4/conf/eth0.100/forwarding"));
    }
}
