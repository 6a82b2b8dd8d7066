//! Environment variables, merged as Docker merges them.

use super::defaults;
use crate::model::ContainerSpec;

/// `defaults` with `overrides` on top: same name replaces in place, new ones go to the end, a name without `=` removes.
pub(crate) fn merge_environment(defaults: Vec<String>, overrides: &[String]) -> Vec<String> {
    let mut merged: Vec<Option<String>> = defaults.into_iter().map(Some).collect();
    for entry in overrides {
        let name = name_of(entry);
        let place = merged.iter().position(|known| known.as_deref().is_some_and(|known| name_of(known) == name));
        match (place, entry.contains('=')) {
            (Some(place), true) => merged[place] = Some(entry.clone()),
            (Some(place), false) => merged[place] = None,
            (None, true) => merged.push(Some(entry.clone())),
            (None, false) => {}
        }
    }
    merged.into_iter().flatten().collect()
}

/// The first process's.
pub(super) fn container_environment(spec: &ContainerSpec, hostname: &str) -> Vec<String> {
    let mut base = vec![format!("PATH={}", defaults::PATH), format!("HOSTNAME={hostname}")];
    if spec.tty {
        base.push("TERM=xterm".into());
    }
    merge_environment(base, &spec.env)
}

/// An exec's: the container's, a terminal of its own, and what was added.
pub(super) fn exec_environment(spec: &ContainerSpec, hostname: &str, tty: bool, added: &[String]) -> Vec<String> {
    let mut base = vec![format!("PATH={}", defaults::PATH), format!("HOSTNAME={hostname}")];
    if tty {
        base.push("TERM=xterm".into());
    }
    merge_environment(merge_environment(base, &spec.env), added)
}

fn name_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::merge_environment;

    #[test]
    fn overrides_replace_in_place_and_remove() {
        let base = || vec!["A=1".to_owned(), "B=2".to_owned()];
        let merged = |overrides: &[&str]| {
            merge_environment(base(), &overrides.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(merged(&["A=9", "C=3"]), ["A=9", "B=2", "C=3"]);
        assert_eq!(merged(&["A", "D"]), ["B=2"]);
        assert_eq!(merged(&["A=x=y"]), ["A=x=y", "B=2"]);
    }
}
