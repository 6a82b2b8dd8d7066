//! Why a container's last run ended.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{LogForwarding, Signal, Status};

/// What is remembered of a run's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEnd {
    /// What its first process left: its exit code, or 128 and the signal that ended it.
    pub exit_code: i32,
    /// What is known beyond that.
    #[serde(default)]
    pub cause: EndCause,
    /// Whether the kernel killed a process of it for want of memory.
    pub oom_killed: bool,
    /// When it began.
    #[serde(with = "crate::moment::optional")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(with = "crate::moment")]
    pub finished_at: Timestamp,
    /// Who asked for an end while it ran, oldest first.
    pub asked: Vec<EndRequest>,
    /// What the health check last said.
    #[serde(default)]
    pub health: Option<HealthNote>,
}

/// What a monitor knows of an end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndCause {
    /// The signal that ended the first process.
    pub signal: Option<i32>,
    /// The container's memory when the kernel had killed for want of it.
    pub memory: Option<EndMemory>,
    /// Nobody saw the end: its monitor was gone.
    pub unseen: bool,
}

/// How much memory there was, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndMemory {
    /// The limit; none for none.
    pub limit_bytes: Option<u64>,
    /// The most that was used.
    pub peak_bytes: u64,
    /// How many processes the kernel has killed.
    pub kills: u64,
}

/// Somebody asked for an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndRequest {
    /// By which command.
    pub verb: EndVerb,
    /// The signal that was sent first.
    pub signal: i32,
    /// Who asked.
    pub by: String,
    /// When.
    #[serde(with = "crate::moment")]
    pub at: Timestamp,
}

/// The commands that ask for an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndVerb {
    /// `stop`
    Stop,
    /// `restart`
    Restart,
    /// `kill`
    Kill,
    /// `rm -f`
    Remove,
}

impl EndVerb {
    /// The command's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Kill => "kill",
            Self::Remove => "rm -f",
        }
    }
}

/// What the health check last said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthNote {
    /// Docker's word: `healthy`, `unhealthy`, `starting`.
    pub status: String,
    /// Failures in a row.
    pub failing_streak: u32,
    /// What the last probe printed.
    pub output: String,
}

impl HealthNote {
    /// Of a state of health.
    pub(crate) fn of(health: &super::Health) -> Self {
        let output = health.log.last().map(|probe| probe.output.trim().chars().take(200).collect());
        Self {
            status: health.status.as_str().to_owned(),
            failing_streak: health.failing_streak,
            output: output.unwrap_or_default(),
        }
    }
}

/// Why a container is as it is.
#[derive(Debug, Clone)]
pub struct Why {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// How it is now.
    pub status: Status,
    /// How often its policy has started it again.
    pub restart_count: u32,
    /// Why the last start failed, or the last removal.
    pub error: String,
    /// When it was started last.
    pub started_at: Option<Timestamp>,
    /// How its last run ended; none before the first end.
    pub end: Option<RunEnd>,
    /// How the lines of its log fared, where some were lost or are sent elsewhere.
    pub log: Option<LogForwarding>,
}

impl Why {
    /// The answer in sentences, one an entry.
    pub fn sentences(&self) -> Vec<String> {
        let mut said = vec![self.now()];
        if let Some(end) = &self.end {
            said.extend(end.sentences(if self.is_up() { "Its run before" } else { "Its last run" }));
        }
        if self.restart_count > 0 {
            said.push(format!("Its restart policy has started it again {} times.", self.restart_count));
        }
        said.extend(self.log.as_ref().and_then(lost_lines));
        said
    }

    fn is_up(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused)
    }

    fn now(&self) -> String {
        let name = &self.name;
        match (self.status, self.started_at) {
            (Status::Created, _) if !self.error.is_empty() => format!("{name} could not be started: {}.", self.error),
            (Status::Created, _) => format!("{name} has never been started."),
            (Status::Exited, _) if !self.error.is_empty() => {
                format!("{name} could not be started again: {}.", self.error)
            }
            (Status::Dead, _) => format!("{name} could not be removed: {}.", self.error),
            (status, Some(at)) => format!("{name} is {}; it was started at {at}.", status.as_str()),
            (status, None) => format!("{name} is {}.", status.as_str()),
        }
    }
}

/// What is missing of a log; nothing where all of it is there.
fn lost_lines(log: &LogForwarding) -> Option<String> {
    let lost = [(log.unwritten, "not written here in time"), (log.dropped, "never taken by the log driver's sink")];
    let told = lost.into_iter().filter(|(lines, _)| *lines > 0).map(|(lines, how)| format!("{lines} {how}"));
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| format!("Lines of its log were lost: {}.", told.join(", ")))
}

impl RunEnd {
    fn sentences(&self, run: &str) -> Vec<String> {
        let mut said = vec![format!("{run} {} at {}.", self.how(), self.finished_at)];
        said.extend(self.asked.iter().map(|asked| {
            format!("{} was asked for by {} at {} ({}).", asked.verb.as_str(), asked.by, asked.at, name(asked.signal))
        }));
        if self.oom_killed {
            said.push(self.memory());
        } else if let (Some(signal), true) = (self.cause.signal, self.asked.is_empty()) {
            said.push(match signal {
                9 => "Nobody asked the engine for this: another program, or the kernel when the host had no memory left, sent it.".to_owned(),
                _ => "Nobody asked the engine for this: the program did it itself, or another program sent it.".to_owned(),
            });
        }
        if let Some(health) = &self.health {
            let output = if health.output.is_empty() { String::new() } else { format!(": {}", health.output) };
            said.push(format!(
                "Its health check said {} ({} failures in a row){output}.",
                health.status, health.failing_streak
            ));
        }
        said
    }

    fn how(&self) -> String {
        match self.cause {
            EndCause { unseen: true, .. } => {
                "ended unseen while its monitor was gone, as after a crash of the machine,".to_owned()
            }
            EndCause { signal: Some(signal), .. } => format!("was ended by {}", name(signal)),
            _ => format!("exited with code {}", self.exit_code),
        }
    }

    fn memory(&self) -> String {
        match &self.cause.memory {
            Some(memory) => {
                let limit = memory
                    .limit_bytes
                    .map_or_else(|| "no limit".to_owned(), |limit| format!("a limit of {limit} bytes"));
                format!(
                    "The kernel killed {} of its processes for want of memory: {limit}, {} bytes at most in use.",
                    memory.kills, memory.peak_bytes
                )
            }
            None => "The kernel killed one of its processes for want of memory.".to_owned(),
        }
    }
}

fn name(signal: i32) -> String {
    Signal::parse(&signal.to_string()).map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(exit_code: i32, cause: EndCause) -> RunEnd {
        let finished_at = Timestamp::from_second(60).unwrap();
        RunEnd { exit_code, cause, oom_killed: false, started_at: None, finished_at, asked: Vec::new(), health: None }
    }

    fn said(end: RunEnd) -> String {
        let why = Why {
            id: "1".into(),
            name: "web".into(),
            status: Status::Exited,
            restart_count: 0,
            error: String::new(),
            started_at: None,
            end: Some(end),
            log: None,
        };
        why.sentences()[1..].join(" ")
    }

    #[test]
    fn lost_lines_are_told_by_where_they_were_lost() {
        assert_eq!(lost_lines(&LogForwarding { sent: 7, ..LogForwarding::default() }), None);
        let both = LogForwarding { unwritten: 3, dropped: 4, ..LogForwarding::default() };
        assert_eq!(
            lost_lines(&both).unwrap(),
            "Lines of its log were lost: 3 not written here in time, 4 never taken by the log driver's sink."
        );
    }

    #[test]
    fn every_kind_of_end_is_told_apart() {
        let signal = |number| EndCause { signal: Some(number), ..EndCause::default() };
        assert!(
            said(end(3, EndCause::default())).starts_with("Its last run exited with code 3 at 1970-01-01T00:01:00Z.")
        );
        assert!(
            said(end(137, signal(9))).contains("SIGKILL at 1970-01-01T00:01:00Z. Nobody asked the engine for this")
        );
        let unseen = EndCause { unseen: true, ..EndCause::default() };
        assert!(said(end(255, unseen)).contains("ended unseen"));
        let by = "docker (pid 7, uid 0)".to_owned();
        let asked = EndRequest { verb: EndVerb::Stop, signal: 15, by, at: Timestamp::from_second(50).unwrap() };
        let stopped = said(RunEnd { asked: vec![asked], ..end(143, signal(15)) });
        assert!(
            stopped.contains("ended by SIGTERM") && stopped.contains("stop was asked for by docker (pid 7, uid 0)")
        );
        assert!(!stopped.contains("Nobody"));
        let memory = Some(EndMemory { limit_bytes: Some(7), peak_bytes: 6, kills: 2 });
        let killed = RunEnd { oom_killed: true, ..end(137, EndCause { memory, ..signal(9) }) };
        assert!(
            said(killed).contains("killed 2 of its processes for want of memory: a limit of 7 bytes, 6 bytes at most")
        );
    }
}
