//! v1's form of device rules: a default, and exceptions from it.

use std::fmt;

use super::{DeviceError, Devices, Kind, Rule};

/// Some of reading, writing and making nodes; the bits are those of v2's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Access(u8);

impl Access {
    pub(crate) const ALL: Self = Self(7);
    const LETTERS: [(char, u8); 3] = [('r', 2), ('w', 4), ('m', 1)];

    /// Reads letters; no letter at all means all of them.
    pub(crate) fn parse(letters: &str) -> Option<Self> {
        let bit = |letter| Self::LETTERS.iter().find_map(|(known, bit)| (*known == letter).then_some(*bit));
        match letters.chars().try_fold(0, |bits, letter| Some(bits | bit(letter)?))? {
            0 => Some(Self::ALL),
            bits => Some(Self(bits)),
        }
    }

    pub(crate) fn bits(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Self::LETTERS
            .iter()
            .filter(|(_, bit)| self.0 & bit != 0)
            .try_for_each(|(letter, _)| write!(formatter, "{letter}"))
    }
}

/// A default for all devices, and the devices for which the contrary holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lists {
    allows_by_default: bool,
    /// In the order of the rules, which is how the kernel will list them; each device once.
    exceptions: Vec<(Devices, u8)>,
}

/// Which of v1's two files is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Allow,
    Deny,
}

impl Verb {
    pub(super) fn file(self) -> &'static str {
        match self {
            Self::Allow => "devices.allow",
            Self::Deny => "devices.deny",
        }
    }
}

impl Lists {
    /// Rules that nobody has read: the way from here starts anew.
    pub(super) fn unknown() -> Self {
        Self { allows_by_default: true, exceptions: Vec::new() }
    }

    /// Nothing is allowed, then the rules are applied in order.
    pub(super) fn of(rules: &[Rule]) -> Result<Self, DeviceError> {
        let mut lists = Self { allows_by_default: false, exceptions: Vec::new() };
        rules.iter().try_for_each(|rule| lists.apply(rule)).map(|()| lists)
    }

    /// Reads `devices.list`, which shows `a *:* rwm` for "allowed by default" and hides the exceptions from that.
    pub(super) fn parse(content: &str) -> Self {
        let mut lists = Self { allows_by_default: false, exceptions: Vec::new() };
        for line in content.lines() {
            match parse_line(line) {
                Some((Devices::All, _)) => lists.allows_by_default = true,
                Some((devices, access)) => lists.add_exception(devices, access.bits()),
                None => {}
            }
        }
        lists
    }

    /// What has to be written to get from here to there, in order.
    pub(super) fn way_to(&self, target: &Self) -> Vec<(Verb, String)> {
        let contrary = if target.allows_by_default { Verb::Deny } else { Verb::Allow };
        let back = if target.allows_by_default { Verb::Allow } else { Verb::Deny };
        // Where exceptions are hidden, and where the default changes, a fresh start is the only sure way.
        if self.allows_by_default || target.allows_by_default {
            let all = Rule { allow: target.allows_by_default, devices: Devices::All, access: Access::ALL };
            let start = std::iter::once((back, all.to_string()));
            return start
                .chain(target.exceptions.iter().map(|(devices, bits)| (contrary, entry(*devices, *bits))))
                .collect();
        }
        // What stays allowed must not be denied for a moment: add first, then take away.
        let added = target.minus(self).map(|text| (contrary, text));
        let removed = self.minus(target).map(|text| (back, text));
        added.chain(removed).collect()
    }

    /// What is allowed, where nothing else is.
    pub(super) fn allowed(&self) -> Option<impl Iterator<Item = (Devices, Access)>> {
        let exceptions = self.exceptions.iter().map(|(devices, bits)| (*devices, Access(*bits)));
        (!self.allows_by_default).then_some(exceptions)
    }

    fn apply(&mut self, rule: &Rule) -> Result<(), DeviceError> {
        if rule.devices == Devices::All {
            if rule.access != Access::ALL {
                let reason = "a rule for all devices must be for rwm in cgroup v1";
                return Err(DeviceError::Invalid { rule: rule.to_string(), reason });
            }
            *self = Self { allows_by_default: rule.allow, exceptions: Vec::new() };
            return Ok(());
        }
        if rule.allow == self.allows_by_default {
            self.remove_exception(rule)
        } else {
            self.add_exception(rule.devices, rule.access.bits());
            Ok(())
        }
    }

    fn add_exception(&mut self, devices: Devices, bits: u8) {
        match self.exceptions.iter_mut().find(|(known, _)| *known == devices) {
            Some((_, known)) => *known |= bits,
            None => self.exceptions.push((devices, bits)),
        }
    }

    /// Which access is excepted for exactly these devices.
    fn excepted(&self, devices: Devices) -> u8 {
        self.exceptions.iter().find(|(known, _)| *known == devices).map_or(0, |(_, bits)| *bits)
    }

    /// Takes an exception back. The kernel only takes back what is there in the same words, and is silent about the rest.
    fn remove_exception(&mut self, rule: &Rule) -> Result<(), DeviceError> {
        let around = wider(rule.devices).any(|devices| self.excepted(devices) & rule.access.bits() != 0);
        if around {
            return Err(DeviceError::Hole { rule: rule.to_string() });
        }
        // Exceptions for single devices inside the rule's range go with it.
        for (devices, bits) in &mut self.exceptions {
            if *devices == rule.devices || wider(*devices).any(|devices| devices == rule.devices) {
                *bits &= !rule.access.bits();
            }
        }
        self.exceptions.retain(|(_, bits)| *bits != 0);
        Ok(())
    }

    /// The exceptions of this one that the other lacks.
    fn minus<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = String> + 'a {
        self.exceptions.iter().filter_map(|(devices, bits)| {
            let left = bits & !other.excepted(*devices);
            (left != 0).then(|| entry(*devices, left))
        })
    }
}

/// The ranges that contain these devices and are written in other words.
fn wider(devices: Devices) -> impl Iterator<Item = Devices> {
    let Devices::Some { kind, major, minor } = devices else { return [None, None, None].into_iter().flatten() };
    let any = |major, minor| Some(Devices::Some { kind, major, minor });
    [
        any(None, None).filter(|_| major.is_some() || minor.is_some()),
        any(major, None).filter(|_| major.is_some() && minor.is_some()),
        any(None, minor).filter(|_| major.is_some() && minor.is_some()),
    ]
    .into_iter()
    .flatten()
}

fn entry(devices: Devices, bits: u8) -> String {
    Rule { allow: true, devices, access: Access(bits) }.to_string()
}

/// `c 1:3 rwm`, `b *:* m`
fn parse_line(line: &str) -> Option<(Devices, Access)> {
    let mut words = line.split_ascii_whitespace();
    let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
    let (major, minor) = numbers.split_once(':')?;
    let kind = match kind {
        "a" => return Some((Devices::All, Access::parse(access)?)),
        "b" => Kind::Block,
        "c" => Kind::Character,
        _ => return None,
    };
    let devices = Devices::Some { kind, major: major.parse().ok(), minor: minor.parse().ok() };
    Some((devices, Access::parse(access)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        let (verb, line) = text.split_once(' ').unwrap();
        let (devices, access) = parse_line(line).unwrap();
        Rule { allow: verb == "allow", devices, access }
    }

    fn lists(rules: &[&str]) -> Result<Lists, DeviceError> {
        Lists::of(&rules.iter().map(|text| rule(text)).collect::<Vec<_>>())
    }

    fn way(from: &str, rules: &[&str]) -> Vec<String> {
        let describe =
            |(verb, entry): (Verb, String)| format!("{} {entry}", if verb == Verb::Allow { "allow" } else { "deny" });
        Lists::parse(from).way_to(&lists(rules).unwrap()).into_iter().map(describe).collect()
    }

    #[test]
    fn a_new_cgroup_starts_from_nothing() {
        assert_eq!(
            way(
                "a *:* rwm\n",
                &["deny a *:* rwm", "allow c 1:3 rw", "allow c 1:3 m", "allow b *:* m", "deny c 10:229 rwm"]
            ),
            ["deny a *:* rwm", "allow c 1:3 rwm", "allow b *:* m"]
        );
        assert_eq!(way("a *:* rwm\n", &["allow a *:* rwm"]), ["allow a *:* rwm"]);
        assert_eq!(way("a *:* rwm\n", &["allow a *:* rwm", "deny b 8:0 w"]), ["allow a *:* rwm", "deny b 8:0 w"]);
    }

    #[test]
    fn an_update_never_denies_what_stays_allowed() {
        assert_eq!(
            way("c 1:3 rwm\nc 1:5 rw\n", &["allow c 1:3 rwm", "allow c 1:8 r"]),
            ["allow c 1:8 r", "deny c 1:5 rw"]
        );
        assert!(way("c 1:3 rwm\n", &["allow c 1:3 rwm"]).is_empty());
        assert_eq!(way("", &["allow a *:* rwm"]), ["allow a *:* rwm"]);
    }

    #[test]
    fn holes_are_refused_because_the_kernel_would_not_make_them() {
        assert!(matches!(lists(&["allow c *:* rwm", "deny c 1:3 w"]), Err(DeviceError::Hole { .. })));
        assert!(matches!(lists(&["allow c 1:* rw", "deny c 1:3 w"]), Err(DeviceError::Hole { .. })));
        // Other access and other kinds do not touch.
        assert!(lists(&["allow c *:* m", "deny c 1:3 w"]).is_ok());
        assert!(lists(&["allow b *:* rwm", "deny c 1:3 w"]).is_ok());
        assert!(matches!(lists(&["allow a *:* r"]), Err(DeviceError::Invalid { .. })));
    }

    #[test]
    fn a_wide_denial_takes_the_narrow_exceptions_along() {
        let lists = lists(&["allow c 1:3 rwm", "allow c 1:5 rwm", "allow c 2:1 rwm", "deny c 1:* w"]).unwrap();
        let entries: Vec<_> = lists.exceptions.iter().map(|(devices, bits)| entry(*devices, *bits)).collect();
        assert_eq!(entries, ["c 1:3 rm", "c 1:5 rm", "c 2:1 rwm"]);
    }
}
