//! `--chown` and `--chmod`.

use crate::error::BuildError;
use crate::root::Root;

/// User and group as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// `user[:group]`, names looked up in the image. Without a group a name has its own, a number itself.
pub(crate) fn parse_owner(text: &str, root: &Root) -> Result<Owner, BuildError> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let (uid, own_gid) = match user.parse::<u32>() {
        Ok(uid) => (uid, uid),
        Err(_) => find(root, "/etc/passwd", user, "uid").map(|fields| (fields.0, fields.1.unwrap_or(fields.0)))?,
    };
    let gid = match (group, group.parse::<u32>()) {
        ("", _) => own_gid,
        (_, Ok(gid)) => gid,
        _ => find(root, "/etc/group", group, "gid")?.0,
    };
    Ok(Owner { uid, gid })
}

/// The number of a name, and in `/etc/passwd` that of its group.
fn find(root: &Root, file: &str, name: &str, kind: &'static str) -> Result<(u32, Option<u32>), BuildError> {
    let text = root.text(file).map_err(BuildError::io("cannot read the image's users"))?.unwrap_or_default();
    let numbers = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name);
        let number = fields.nth(1).and_then(|field| field.parse().ok());
        let group = fields.next().and_then(|field| field.parse().ok());
        if found { number.map(|number| (number, group)) } else { None }
    });
    numbers.ok_or_else(|| BuildError::Owner { kind, name: name.to_owned() })
}

/// What `--chmod` does to a file's permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ModeChange {
    /// These permissions.
    Octal(u32),
    /// `u+x,go=r`: who, how, what.
    Symbolic(Vec<(u32, char, Vec<char>)>),
}

impl ModeChange {
    pub(crate) fn parse(text: &str) -> Result<ModeChange, BuildError> {
        let wrong = || BuildError::Chmod(text.to_owned());
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).map_err(|_| wrong())?;
            return if mode <= 0o7777 { Ok(ModeChange::Octal(mode)) } else { Err(wrong()) };
        }
        let clauses = text.split(',').map(|clause| {
            let at = clause.find(['+', '-', '=']).ok_or_else(wrong)?;
            let mut who = 0;
            for c in clause[..at].chars() {
                who |= match c {
                    'u' => 0o4700,
                    'g' => 0o2070,
                    'o' => 0o1007,
                    'a' => 0o7777,
                    _ => return Err(wrong()),
                };
            }
            let what: Vec<char> = clause[at + 1..].chars().collect();
            let known = what.iter().all(|c| matches!(c, 'r' | 'w' | 'x' | 'X' | 's' | 't'));
            let operation = clause[at..].chars().next().unwrap_or('+');
            if known { Ok((if who == 0 { 0o7777 } else { who }, operation, what)) } else { Err(wrong()) }
        });
        clauses.collect::<Result<_, _>>().map(ModeChange::Symbolic)
    }

    pub(crate) fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let clauses = match self {
            ModeChange::Octal(mode) => return *mode,
            ModeChange::Symbolic(clauses) => clauses,
        };
        clauses.iter().fold(mode, |mode, (who, operation, what)| {
            let bits = what.iter().fold(0, |bits, c| {
                bits | match c {
                    'r' => 0o444,
                    'w' => 0o222,
                    'x' => 0o111,
                    'X' if is_directory || mode & 0o111 != 0 => 0o111,
                    's' => 0o6000,
                    't' => 0o1000,
                    _ => 0,
                }
            }) & who;
            match operation {
                '+' => mode | bits,
                '-' => mode & !bits,
                _ => (mode & !who) | bits,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_in_numbers_and_letters() {
        let apply = |text: &str, mode, directory| ModeChange::parse(text).unwrap().apply(mode, directory);
        assert_eq!(apply("0755", 0o600, false), 0o755);
        assert_eq!(apply("u+x", 0o644, false), 0o744);
        assert_eq!(apply("go-rwx", 0o755, false), 0o700);
        assert_eq!(apply("a=rX", 0o640, false), 0o444);
        assert_eq!(apply("a=rX", 0o750, true), 0o555);
        assert_eq!(apply("u=rw,g=r,o=", 0o777, false), 0o640);
        assert_eq!(apply("+t", 0o755, true), 0o1755);
        for text in ["8", "10000", "u", "z+x", "u+q", ""] {
            assert!(ModeChange::parse(text).is_err(), "{text}");
        }
    }
}
