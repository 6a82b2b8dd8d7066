//! Rules of others on the same host, as far as they concern us.

use nftables::{Family as Version, Hook, Kernel, Policy, Transaction};

use super::FirewallError;
use super::plan::Plan;

/// iptables' table of filters, when iptables is the one that speaks to nf_tables.
pub(super) const IPTABLES_TABLE: &str = "filter";
/// Docker's chain for rules that are not Docker's, which it keeps over its restarts.
const DOCKER_USER: &str = "DOCKER-USER";
const IPTABLES_FORWARD: &str = "FORWARD";

/// What of others' rules concerns us. An accept in one chain does not help against a drop in another at the same hook, so we
/// must be let through wherever packets are dropped by default.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    /// The chains of iptables' filter tables that our rules go into, if those tables forward at all; one of a family.
    pub(super) entrances: Vec<(Version, String)>,
    /// Our rules in those tables: chain and handle.
    pub(super) marked: Vec<(Version, String, u64)>,
    /// Other chains that drop forwarded packets by default.
    pub(super) unhelped: Vec<String>,
}

impl Foreign {
    pub(super) fn find(kernel: &mut Kernel, plan: &Plan) -> Result<Self, FirewallError> {
        let mut found = Self::default();
        let mark = plan.mark();
        let has_ipv6 = plan.segments.iter().flat_map(|segment| &segment.nets).any(|net| net.first.is_ipv6());
        for chain in kernel.chains()? {
            let drops_forwarded = chain.base == Some((Hook::Forward, Policy::Drop));
            let concerns_us = chain.family != Version::Ip6 || has_ipv6;
            if chain.family != Version::Inet && chain.table == IPTABLES_TABLE {
                if concerns_us {
                    found.enter(chain.family, &chain.name);
                }
                if [DOCKER_USER, IPTABLES_FORWARD].contains(&chain.name.as_str()) {
                    let rules = kernel.rules(chain.family, IPTABLES_TABLE, &chain.name)?;
                    let ours = rules.iter().filter(|rule| rule.comment.as_deref() == Some(mark.as_str()));
                    found.marked.extend(ours.map(|rule| (chain.family, chain.name.clone(), rule.handle)));
                }
            } else if drops_forwarded && chain.table != plan.names.table() && concerns_us {
                found.unhelped.push(format!("{} {} {}", chain.family, chain.table, chain.name));
            }
        }
        Ok(found)
    }

    /// Notes a chain as the one that our rules go into, if there is none better.
    fn enter(&mut self, family: Version, chain: &str) {
        let known = self.entrances.iter_mut().find(|(other, _)| *other == family);
        match (chain, known) {
            (DOCKER_USER, Some((_, known))) => DOCKER_USER.clone_into(known),
            (DOCKER_USER | IPTABLES_FORWARD, None) => self.entrances.push((family, chain.to_owned())),
            _ => {}
        }
    }

    pub(super) fn remove_marked(&self, transaction: &mut Transaction) {
        for (family, chain, handle) in &self.marked {
            transaction.delete_rule(*family, IPTABLES_TABLE, chain, *handle);
        }
    }
}
