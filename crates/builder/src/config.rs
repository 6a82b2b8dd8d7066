//! The state of a stage: its configuration so far, and the variables that its next step sees.

use std::collections::BTreeMap;

use dockerfile::{Environment, HealthcheckTest, Pair, clean_path};
use oci::image::{ContainerConfig, EmptyObject, Healthcheck, History, ImageConfig, Platform};
use oci::{DiffId, Digest};

use crate::time::go_duration;

/// What every image begins with that begins with nothing.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const COMMENT: &str = "buildkit.dockerfile.v0";

/// A stage between two steps.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) image: ImageConfig,
    /// Configured variables and declared arguments.
    pub(crate) environment: Environment,
    /// Declared arguments with their values, in order.
    pub(crate) arguments: Vec<(String, Option<String>)>,
    /// Whether this stage has set its own command.
    pub(crate) command_set: bool,
    /// Instructions that a base image triggers.
    pub(crate) triggers: Vec<String>,
}

impl State {
    /// `FROM scratch`.
    pub(crate) fn empty(platform: &Platform) -> State {
        let config = ContainerConfig {
            env: Some(vec![DEFAULT_PATH.to_owned()]),
            working_dir: "/".to_owned(),
            ..ContainerConfig::default()
        };
        let image = ImageConfig {
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            os: platform.os.clone(),
            config,
            ..ImageConfig::default()
        };
        State::upon(image)
    }

    /// On top of an image.
    pub(crate) fn upon(image: ImageConfig) -> State {
        let environment = Environment::of(image.config.env.as_deref().unwrap_or_default());
        let mut image = ImageConfig { created: None, parent: None, comment: String::new(), build_cache: None, ..image };
        image.docker_version.clear();
        let triggers = image.config.on_build.take().unwrap_or_default();
        State { image, environment, arguments: Vec::new(), command_set: false, triggers }
    }

    /// What a stage begins with that begins with this one: what was declared stays visible, but its commands do not depend on it.
    pub(crate) fn into_next_stage(mut self) -> State {
        self.command_set = false;
        self.arguments.clear();
        self.triggers = self.image.config.on_build.take().unwrap_or_default();
        self
    }

    pub(crate) fn layers(&self) -> &[DiffId] {
        &self.image.rootfs.diff_ids
    }

    fn config(&mut self) -> &mut ContainerConfig {
        &mut self.image.config
    }

    /// A step that only changed the configuration.
    pub(crate) fn note(&mut self, created_by: String) {
        self.add_history(created_by, None);
    }

    /// A step that may have made a layer, with the time at which that was.
    pub(crate) fn add_history(&mut self, created_by: String, made: Option<(DiffId, String)>) {
        let layer = made.as_ref().map(|(layer, _)| *layer);
        self.image.rootfs.diff_ids.extend(layer);
        self.image.history.push(History {
            created: made.map(|(_, time)| time),
            created_by,
            comment: COMMENT.to_owned(),
            empty_layer: layer.is_none(),
            ..History::default()
        });
    }

    pub(crate) fn shell(&self) -> Vec<String> {
        self.image.config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()])
    }

    /// A path as this stage means it: absolute and clean, a slash at its end kept.
    pub(crate) fn absolute(&self, path: &str) -> String {
        let whole =
            if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", self.image.config.working_dir) };
        let clean = clean_path(&format!("/{whole}"));
        let is_directory = path.ends_with('/') || matches!(path, "." | "") || path.ends_with("/.");
        if is_directory && clean != "/" { clean + "/" } else { clean }
    }

    pub(crate) fn set_variables(&mut self, pairs: &[Pair]) -> String {
        let mut text = "ENV".to_owned();
        for pair in pairs {
            self.environment.set(&pair.name, &pair.value);
            let mut configured = Environment::of(self.image.config.env.as_deref().unwrap_or_default());
            configured.set(&pair.name, &pair.value);
            self.config().env = Some(configured.entries());
            text.push_str(&format!(" {}={}", pair.name, pair.value));
        }
        text
    }

    pub(crate) fn set_labels(&mut self, pairs: &[Pair]) -> String {
        let mut text = "LABEL".to_owned();
        for pair in pairs {
            self.config().labels.get_or_insert_default().insert(pair.name.clone(), pair.value.clone());
            text.push_str(&format!(" {}={}", pair.name, pair.value));
        }
        text
    }

    pub(crate) fn add_labels(&mut self, labels: &BTreeMap<String, String>) {
        if !labels.is_empty() {
            let all = self.config().labels.get_or_insert_default();
            all.extend(labels.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
    }

    pub(crate) fn set_command(&mut self, arguments: Vec<String>) -> String {
        let text = format!("CMD {}", quoted(&arguments));
        self.config().cmd = Some(arguments).filter(|list| !list.is_empty());
        self.config().args_escaped = true;
        self.command_set = true;
        text
    }

    pub(crate) fn set_entrypoint(&mut self, arguments: Vec<String>) -> String {
        let text = format!("ENTRYPOINT {}", quoted(&arguments));
        self.config().entrypoint = Some(arguments).filter(|list| !list.is_empty());
        // An entry point of one's own makes the inherited arguments meaningless.
        if !self.command_set {
            self.config().cmd = None;
        }
        text
    }

    pub(crate) fn expose(&mut self, ports: &[String]) -> String {
        let exposed = self.config().exposed_ports.get_or_insert_default();
        exposed.extend(ports.iter().map(|port| (port.clone(), EmptyObject {})));
        // Docker 26 writes them as Go's map.
        let set: std::collections::BTreeSet<&String> = ports.iter().collect();
        let shown: Vec<String> = set.into_iter().map(|port| format!("{port}:{{}}")).collect();
        format!("EXPOSE map[{}]", shown.join(" "))
    }

    pub(crate) fn add_volumes(&mut self, paths: &[String]) -> String {
        let volumes = self.config().volumes.get_or_insert_default();
        volumes.extend(paths.iter().map(|path| (path.clone(), EmptyObject {})));
        format!("VOLUME [{}]", paths.join(" "))
    }

    pub(crate) fn set_healthcheck(&mut self, check: &dockerfile::Healthcheck) -> String {
        let test = match &check.test {
            HealthcheckTest::None => vec!["NONE".to_owned()],
            HealthcheckTest::Command(command) => {
                let kind = if matches!(command, dockerfile::CommandLine::Exec(_)) { "CMD" } else { "CMD-SHELL" };
                std::iter::once(kind.to_owned()).chain(command.arguments(&[])).collect()
            }
        };
        let times = [check.interval, check.timeout, check.start_period, check.start_interval];
        let shown: Vec<String> = times.iter().map(|time| format!("{:?}", go_duration(*time))).collect();
        let text = format!("HEALTHCHECK &{{{} {} {}}}", quoted(&test), shown.join(" "), go_letter(check.retries));
        let nanoseconds = |time: std::time::Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        self.config().healthcheck = Some(Healthcheck {
            test,
            interval: nanoseconds(check.interval),
            timeout: nanoseconds(check.timeout),
            start_period: nanoseconds(check.start_period),
            start_interval: nanoseconds(check.start_interval),
            retries: i64::from(check.retries),
        });
        text
    }

    /// The state's identity for the eye, times included.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.bytes())
    }

    /// The configuration as it is stored.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.image).expect("configurations have string keys")
    }
}

/// A small number as Go prints it with `%q`, which takes it for a letter.
fn go_letter(number: u32) -> String {
    let letter = char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER);
    let shown = match letter {
        '\u{7}' => "\\a".to_owned(),
        '\u{8}' => "\\b".to_owned(),
        '\u{b}' => "\\v".to_owned(),
        '\u{c}' => "\\f".to_owned(),
        '\n' | '\r' | '\t' | '\\' | '\'' => letter.escape_default().to_string(),
        letter if u32::from(letter) < 0x20 || letter == '\u{7f}' => format!("\\x{number:02x}"),
        letter if letter.is_control() => format!("\\u{number:04x}"),
        letter => letter.to_string(),
    };
    format!("'{shown}'")
}

/// `["a" "b"]`, as Go prints a list of strings with `%q`.
fn quoted(list: &[String]) -> String {
    format!("[{}]", list.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_go_prints_letters() {
        let shown = [0, 3, 7, 10, 31, 39, 65, 127, 129].map(go_letter);
        assert_eq!(shown, ["'\\x00'", "'\\x03'", "'\\a'", "'\\n'", "'\\x1f'", "'\\''", "'A'", "'\\x7f'", "'\\u0081'"]);
    }

    #[test]
    fn paths_are_relative_to_the_working_directory() {
        let mut state = State::empty(&Platform::host());
        state.image.config.working_dir = "/srv".to_owned();
        let cases = [
            ("a", "/srv/a"),
            ("a/", "/srv/a/"),
            (".", "/srv/"),
            ("./", "/srv/"),
            ("/x/../y", "/y"),
            ("../../..", "/"),
            ("/", "/"),
        ];
        for (path, expected) in cases {
            assert_eq!(state.absolute(path), expected, "{path}");
        }
    }

    #[test]
    fn an_entry_point_drops_an_inherited_command_only() {
        let mut state = State::empty(&Platform::host());
        state.image.config.cmd = Some(vec!["inherited".to_owned()]);
        assert_eq!(state.set_entrypoint(vec!["a \"b".to_owned()]), r#"ENTRYPOINT ["a \"b"]"#);
        assert_eq!(state.image.config.cmd, None);
        state.set_command(vec!["own".to_owned()]);
        state.set_entrypoint(Vec::new());
        assert_eq!((state.image.config.cmd, state.image.config.entrypoint), (Some(vec!["own".to_owned()]), None));
    }
}
