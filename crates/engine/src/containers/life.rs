//! A container's life: every state, every transition, no effect.
//!
//! ```text
//!            start            started              exited
//!  created ─────────▶ starting ─────────▶ running ─────────▶ exited ──▶ removing ──▶ (gone)
//!     ▲                  │  ▲              │   ▲               │  ▲         │
//!     └── start failed ──┘  │        pause ▼   │ unpause       │  │ failed  ▼
//!                           │             paused               │  └─────── dead
//!                           └──────── restarting ◀─────────────┘ the policy says again
//! ```
//!
//! [`Life::on`] is the only place that decides; the actor does what the [`Action`]s say.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{EndCause, EndRequest, EngineError, HealthNote, RestartPolicy, RunEnd, Status};

/// Where a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Never started.
    Created,
    /// The monitor has been asked.
    Starting,
    /// Runs.
    Running {
        /// Its first process.
        pid: i32,
    },
    /// Frozen.
    Paused {
        /// Its first process.
        pid: i32,
    },
    /// Waits for the restart policy's delay.
    Restarting,
    /// Ended.
    Exited,
    /// Is being removed.
    Removing,
    /// Removal failed; only removing again helps.
    Dead,
}

/// A container's state with what is remembered of its runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Life {
    pub(crate) phase: Phase,
    pub(crate) exit_code: i32,
    pub(crate) error: String,
    pub(crate) oom_killed: bool,
    #[serde(with = "crate::moment::optional")]
    pub(crate) started_at: Option<Timestamp>,
    #[serde(with = "crate::moment::optional")]
    pub(crate) finished_at: Option<Timestamp>,
    pub(crate) restart_count: u32,
    /// The delay before the next restart; doubles while runs are short.
    pub(crate) restart_delay_ms: u64,
    /// A user stopped or killed it: `unless-stopped` remembers that over a restart of the daemon.
    pub(crate) stopped_by_user: bool,
    /// A `stop` waits for the exit: its event comes before `die`.
    #[serde(skip)]
    pub(crate) stopping: bool,
    /// Who asked for the end of this run, oldest first.
    #[serde(default)]
    pub(crate) asked: Vec<EndRequest>,
    /// What the health check last said of this run.
    #[serde(skip)]
    pub(crate) health: Option<HealthNote>,
    /// How the last run ended.
    #[serde(default)]
    pub(crate) end: Option<RunEnd>,
}

/// What decides over restart and removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) restart: RestartPolicy,
    pub(crate) auto_remove: bool,
}

/// What happens to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Happening {
    /// A user starts it.
    StartAsked,
    /// The delay of the restart policy is over.
    RestartDue,
    /// It runs.
    Started { pid: i32, at: Timestamp },
    /// It could not be started.
    StartFailed { exit_code: i32, message: String },
    /// Its first process ended.
    Exited { exit_code: i32, oom_killed: bool, at: Timestamp, cause: EndCause },
    /// Somebody was killed for want of memory.
    OutOfMemory,
    /// It is frozen.
    Paused,
    /// It goes on.
    Unpaused,
    /// A user stops it.
    StopAsked,
    /// A user kills it with a signal that ends it.
    KillAsked,
    /// A user removes it.
    RemoveAsked,
    /// Something stayed behind.
    RemoveFailed { message: String },
}

/// What is to be done about it, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask a monitor to start it.
    Launch,
    /// Tell that it started: event `start`.
    TellStarted,
    /// Wake everybody who waits for the exit; then network and volumes are given back.
    WakeWaiters,
    /// Give back network and mounts, with their events.
    LetGo,
    /// Event `oom`.
    TellOutOfMemory,
    /// Event `stop`.
    TellStopped,
    /// Event `die`.
    TellDied,
    /// Event `pause`.
    TellPaused,
    /// Event `unpause`.
    TellUnpaused,
    /// Start again after this.
    RestartAfter(Duration),
    /// Forget the planned restart.
    ForgetRestart,
    /// Remove it, as `--rm` says.
    AutoRemove,
    /// Remove its files and records.
    Remove,
    /// Write the new state down.
    Persist,
}

/// Why a happening is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It runs already.
    AlreadyRunning,
    /// It is frozen.
    IsPaused,
    /// It is not frozen.
    IsNotPaused,
    /// It does not run.
    NotRunning,
    /// It is being removed.
    Removing,
    /// It must be stopped first; the state that it is in.
    StillActive(Status),
}

const FIRST_RESTART_DELAY_MS: u64 = 100;
const LONGEST_RESTART_DELAY_MS: u64 = 60_000;
/// A run as long as this makes the next delay short again.
const GOOD_RUN_SECONDS: i64 = 10;

impl Life {
    /// A new container's.
    pub(crate) fn new() -> Self {
        Self {
            phase: Phase::Created,
            exit_code: 0,
            error: String::new(),
            oom_killed: false,
            started_at: None,
            finished_at: None,
            restart_count: 0,
            restart_delay_ms: 0,
            stopped_by_user: false,
            stopping: false,
            asked: Vec::new(),
            health: None,
            end: None,
        }
    }

    /// Decides. On a refusal nothing changes.
    pub(crate) fn on(&self, policy: Policy, happening: Happening) -> Result<(Life, Vec<Action>), Refusal> {
        let mut next = self.clone();
        let actions = next.turn(policy, happening)?;
        Ok((next, actions))
    }

    /// Docker's one word for it.
    pub(crate) fn status(&self) -> Status {
        match self.phase {
            Phase::Created => Status::Created,
            // A user's start counts restarts from nought; the policy's do not.
            Phase::Starting if self.restart_count > 0 => Status::Restarting,
            Phase::Starting if self.started_at.is_some() => Status::Exited,
            Phase::Starting => Status::Created,
            Phase::Running { .. } => Status::Running,
            Phase::Paused { .. } => Status::Paused,
            Phase::Restarting => Status::Restarting,
            Phase::Exited => Status::Exited,
            Phase::Removing => Status::Removing,
            Phase::Dead => Status::Dead,
        }
    }

    /// The first process, while there is one.
    pub(crate) fn pid(&self) -> Option<i32> {
        match self.phase {
            Phase::Running { pid } | Phase::Paused { pid } => Some(pid),
            _ => None,
        }
    }

    /// Whether a daemon that starts should start it.
    pub(crate) fn starts_with_daemon(&self, policy: RestartPolicy) -> bool {
        let was_running =
            matches!(self.phase, Phase::Running { .. } | Phase::Paused { .. } | Phase::Restarting | Phase::Starting);
        match policy {
            RestartPolicy::No => false,
            RestartPolicy::Always => self.started_at.is_some() || was_running,
            RestartPolicy::UnlessStopped => (self.started_at.is_some() || was_running) && !self.stopped_by_user,
            RestartPolicy::OnFailure { .. } => was_running && self.exit_code != 0,
        }
    }

    fn turn(&mut self, policy: Policy, happening: Happening) -> Result<Vec<Action>, Refusal> {
        match happening {
            Happening::StartAsked => self.start_asked(),
            Happening::RestartDue => self.restart_due(),
            Happening::Started { pid, at } => Ok(self.started(pid, at)),
            Happening::StartFailed { exit_code, message } => Ok(self.start_failed(policy, exit_code, message)),
            Happening::Exited { exit_code, oom_killed, at, cause } => {
                Ok(self.exited(policy, exit_code, oom_killed, (at, cause)))
            }
            Happening::OutOfMemory => Ok(self.out_of_memory()),
            Happening::Paused => self.paused(),
            Happening::Unpaused => self.unpaused(),
            Happening::StopAsked => self.stop_asked(),
            Happening::KillAsked => self.kill_asked(),
            Happening::RemoveAsked => self.remove_asked(),
            Happening::RemoveFailed { message } => Ok(self.remove_failed(message)),
        }
    }

    fn start_asked(&mut self) -> Result<Vec<Action>, Refusal> {
        match self.phase {
            Phase::Created | Phase::Exited => {
                self.phase = Phase::Starting;
                self.restart_delay_ms = 0;
                self.restart_count = 0;
                self.stopped_by_user = false;
                Ok(vec![Action::Launch])
            }
            Phase::Running { .. } | Phase::Starting | Phase::Restarting => Err(Refusal::AlreadyRunning),
            Phase::Paused { .. } => Err(Refusal::IsPaused),
            Phase::Removing | Phase::Dead => Err(Refusal::Removing),
        }
    }

    fn restart_due(&mut self) -> Result<Vec<Action>, Refusal> {
        match self.phase {
            Phase::Restarting => {
                self.phase = Phase::Starting;
                self.restart_count += 1;
                Ok(vec![Action::Launch])
            }
            _ => Err(Refusal::NotRunning),
        }
    }

    fn started(&mut self, pid: i32, at: Timestamp) -> Vec<Action> {
        self.phase = Phase::Running { pid };
        self.started_at = Some(at);
        self.exit_code = 0;
        self.error.clear();
        self.oom_killed = false;
        self.stopping = false;
        self.asked.clear();
        self.health = None;
        vec![Action::TellStarted, Action::Persist]
    }

    fn start_failed(&mut self, policy: Policy, exit_code: i32, message: String) -> Vec<Action> {
        let again = self.restart_count > 0 && self.wants_restart(policy, exit_code);
        self.exit_code = exit_code;
        self.error = message;
        self.phase = match (again, self.started_at) {
            (true, _) => Phase::Restarting,
            (false, Some(_)) => Phase::Exited,
            (false, None) => Phase::Created,
        };
        let mut actions = vec![Action::LetGo];
        if again {
            actions.push(Action::RestartAfter(self.lengthen_delay()));
        } else {
            actions.push(Action::WakeWaiters);
        }
        actions.push(Action::Persist);
        if policy.auto_remove {
            actions.push(Action::AutoRemove);
        }
        actions
    }

    fn exited(
        &mut self,
        policy: Policy,
        exit_code: i32,
        oom_killed: bool,
        (at, cause): (Timestamp, EndCause),
    ) -> Vec<Action> {
        if !matches!(self.phase, Phase::Running { .. } | Phase::Paused { .. } | Phase::Starting) {
            return Vec::new();
        }
        let stopped = self.stopping;
        self.exit_code = exit_code;
        self.oom_killed = self.oom_killed || oom_killed;
        self.finished_at = Some(at);
        self.stopping = false;
        self.end = Some(RunEnd {
            exit_code,
            cause,
            oom_killed: self.oom_killed,
            started_at: self.started_at,
            finished_at: at,
            asked: std::mem::take(&mut self.asked),
            health: self.health.take(),
        });
        let again = !self.stopped_by_user && self.wants_restart(policy, exit_code);
        self.phase = if again { Phase::Restarting } else { Phase::Exited };
        let mut actions = vec![Action::WakeWaiters, Action::LetGo];
        if stopped {
            actions.push(Action::TellStopped);
        }
        actions.push(Action::TellDied);
        if again {
            let delay = self.delay_after_run(at);
            actions.push(Action::RestartAfter(delay));
        }
        if policy.auto_remove && !again {
            actions.push(Action::AutoRemove);
        } else {
            actions.push(Action::Persist);
        }
        actions
    }

    fn out_of_memory(&mut self) -> Vec<Action> {
        self.oom_killed = true;
        vec![Action::TellOutOfMemory, Action::Persist]
    }

    fn paused(&mut self) -> Result<Vec<Action>, Refusal> {
        match self.phase {
            Phase::Running { pid } => {
                self.phase = Phase::Paused { pid };
                Ok(vec![Action::TellPaused, Action::Persist])
            }
            Phase::Paused { .. } => Err(Refusal::IsPaused),
            _ => Err(Refusal::NotRunning),
        }
    }

    fn unpaused(&mut self) -> Result<Vec<Action>, Refusal> {
        match self.phase {
            Phase::Paused { pid } => {
                self.phase = Phase::Running { pid };
                Ok(vec![Action::TellUnpaused, Action::Persist])
            }
            _ => Err(Refusal::IsNotPaused),
        }
    }

    fn stop_asked(&mut self) -> Result<Vec<Action>, Refusal> {
        self.stopped_by_user = true;
        match self.phase {
            Phase::Running { .. } | Phase::Paused { .. } => {
                self.stopping = true;
                Ok(vec![Action::Persist])
            }
            Phase::Restarting => {
                self.phase = Phase::Exited;
                Ok(vec![Action::ForgetRestart, Action::WakeWaiters, Action::TellStopped, Action::Persist])
            }
            _ => Err(Refusal::NotRunning),
        }
    }

    fn kill_asked(&mut self) -> Result<Vec<Action>, Refusal> {
        match self.phase {
            Phase::Running { .. } | Phase::Paused { .. } => {
                self.stopped_by_user = true;
                Ok(vec![Action::Persist])
            }
            _ => Err(Refusal::NotRunning),
        }
    }

    fn remove_asked(&mut self) -> Result<Vec<Action>, Refusal> {
        match self.phase {
            Phase::Created | Phase::Exited | Phase::Dead => {
                self.phase = Phase::Removing;
                Ok(vec![Action::Remove])
            }
            Phase::Removing => Err(Refusal::Removing),
            Phase::Starting => Err(Refusal::StillActive(Status::Running)),
            Phase::Running { .. } | Phase::Paused { .. } | Phase::Restarting => {
                Err(Refusal::StillActive(self.status()))
            }
        }
    }

    fn remove_failed(&mut self, message: String) -> Vec<Action> {
        self.phase = Phase::Dead;
        self.error = message;
        vec![Action::Persist]
    }

    fn wants_restart(&self, policy: Policy, exit_code: i32) -> bool {
        match policy.restart {
            RestartPolicy::No => false,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
            RestartPolicy::OnFailure { maximum_retries: 0 } => exit_code != 0,
            RestartPolicy::OnFailure { maximum_retries } => exit_code != 0 && self.restart_count < maximum_retries,
        }
    }

    fn delay_after_run(&mut self, exited_at: Timestamp) -> Duration {
        let long =
            self.started_at.is_some_and(|started| exited_at.as_second() - started.as_second() >= GOOD_RUN_SECONDS);
        if long {
            self.restart_delay_ms = 0;
        }
        self.lengthen_delay()
    }

    fn lengthen_delay(&mut self) -> Duration {
        self.restart_delay_ms = (self.restart_delay_ms * 2).clamp(FIRST_RESTART_DELAY_MS, LONGEST_RESTART_DELAY_MS);
        Duration::from_millis(self.restart_delay_ms)
    }
}

impl Refusal {
    /// Docker's words for it; `id` is the container's, `reference` what the user called it.
    pub(crate) fn error(self, verb: &str, id: &str, reference: &str) -> EngineError {
        match (self, verb) {
            (Refusal::AlreadyRunning, _) => EngineError::not_modified("container is already running"),
            (Refusal::IsPaused, "start") => {
                EngineError::conflict("cannot start a paused container, try unpause instead")
            }
            (Refusal::IsPaused, _) => EngineError::conflict(format!("container {id} is already paused")),
            (Refusal::IsNotPaused, _) => {
                EngineError::new(crate::model::ErrorKind::System, format!("Container {id} is not paused"))
            }
            (Refusal::NotRunning, "stop") => EngineError::not_modified("container is already stopped"),
            (Refusal::NotRunning, _) => EngineError::conflict(format!("container {id} is not running")),
            (Refusal::Removing, "remove") => {
                EngineError::conflict(format!("removal of container {reference} is already in progress"))
            }
            (Refusal::Removing, _) => EngineError::conflict("container is marked for removal and cannot be started"),
            (Refusal::StillActive(status), _) => EngineError::conflict(format!(
                "cannot remove container \"{reference}\": container is {}: {}stop the container before removing or force remove",
                status.as_str(),
                if status == Status::Paused { "unpause and then " } else { "" },
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::{Action, Happening, Life, Phase, Policy, Refusal};
    use crate::model::{EndCause, RestartPolicy};

    fn policy(restart: RestartPolicy) -> Policy {
        Policy { restart, auto_remove: false }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn exit(exit_code: i32, second: i64) -> Happening {
        Happening::Exited { exit_code, oom_killed: false, at: at(second), cause: EndCause::default() }
    }

    /// Lets all happenings happen; refusals are errors.
    fn after(policy: Policy, happenings: &[Happening]) -> (Life, Vec<Action>) {
        let mut now = (Life::new(), Vec::new());
        for happening in happenings {
            now = now.0.on(policy, happening.clone()).unwrap_or_else(|why| panic!("{happening:?}: {why:?}"));
        }
        now
    }

    #[test]
    fn a_run_from_start_to_exit() {
        let no = policy(RestartPolicy::No);
        let (life, actions) = after(no, &[Happening::StartAsked, Happening::Started { pid: 7, at: at(1) }, exit(3, 2)]);
        assert_eq!((life.phase, life.exit_code), (Phase::Exited, 3));
        assert_eq!(actions, [Action::WakeWaiters, Action::LetGo, Action::TellDied, Action::Persist]);
    }

    #[test]
    fn a_stop_tells_stop_before_die_and_prevents_restart() {
        let always = policy(RestartPolicy::Always);
        let started = [Happening::StartAsked, Happening::Started { pid: 7, at: at(1) }];
        let (life, actions) = after(always, &[&started[..], &[Happening::StopAsked, exit(143, 2)]].concat());
        assert_eq!(life.phase, Phase::Exited);
        assert_eq!(actions[2..4], [Action::TellStopped, Action::TellDied]);
        let (life, actions) = after(always, &[&started[..], &[exit(0, 2)]].concat());
        assert_eq!(life.phase, Phase::Restarting);
        assert!(actions.contains(&Action::RestartAfter(Duration::from_millis(100))));
    }

    #[test]
    fn restarts_are_counted_slowed_down_and_limited() {
        let twice = policy(RestartPolicy::OnFailure { maximum_retries: 2 });
        let mut life = after(twice, &[Happening::StartAsked, Happening::Started { pid: 1, at: at(1) }]).0;
        let mut delays = Vec::new();
        for second in 2.. {
            let (next, actions) = life.on(twice, exit(1, second)).unwrap();
            let Some(Action::RestartAfter(delay)) = actions.iter().find(|a| matches!(a, Action::RestartAfter(_)))
            else {
                life = next;
                break;
            };
            delays.push(delay.as_millis());
            life = next
                .on(twice, Happening::RestartDue)
                .unwrap()
                .0
                .on(twice, Happening::Started { pid: 1, at: at(second) })
                .unwrap()
                .0;
        }
        assert_eq!((life.phase, life.restart_count, delays), (Phase::Exited, 2, vec![100, 200]));
    }

    #[test]
    fn a_failed_start_leaves_it_as_it_was() {
        let failed = Happening::StartFailed { exit_code: 127, message: "no".into() };
        let (life, _) = after(policy(RestartPolicy::Always), &[Happening::StartAsked, failed]);
        assert_eq!((life.phase, life.exit_code, life.error.as_str()), (Phase::Created, 127, "no"));
    }

    #[test]
    fn auto_remove_follows_the_exit() {
        let rm = Policy { restart: RestartPolicy::No, auto_remove: true };
        let (_, actions) = after(rm, &[Happening::StartAsked, Happening::Started { pid: 7, at: at(1) }, exit(0, 2)]);
        assert_eq!(actions.last(), Some(&Action::AutoRemove));
    }

    fn any_happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            Just(Happening::StartAsked),
            Just(Happening::RestartDue),
            (1..9i32).prop_map(|pid| Happening::Started { pid, at: at(5) }),
            Just(Happening::StartFailed { exit_code: 127, message: "x".into() }),
            (0..2i32).prop_map(|code| exit(code, 6)),
            Just(Happening::OutOfMemory),
            Just(Happening::Paused),
            Just(Happening::Unpaused),
            Just(Happening::StopAsked),
            Just(Happening::KillAsked),
            Just(Happening::RemoveAsked),
            Just(Happening::RemoveFailed { message: "x".into() }),
        ]
    }

    fn any_policy() -> impl Strategy<Value = RestartPolicy> {
        prop_oneof![
            Just(RestartPolicy::No),
            Just(RestartPolicy::Always),
            Just(RestartPolicy::UnlessStopped),
            (0..3u32).prop_map(|maximum_retries| RestartPolicy::OnFailure { maximum_retries }),
        ]
    }

    proptest! {
        /// `Started` answers `Launch` and `RemoveFailed` answers `Remove`; apart from that anything may happen at any time.
        #[test]
        fn no_sequence_breaks_the_invariants(restart in any_policy(), happenings in prop::collection::vec(any_happening(), 0..40)) {
            let mut life = Life::new();
            for happening in happenings {
                let fits = match happening {
                    Happening::Started { .. } | Happening::StartFailed { .. } => life.phase == Phase::Starting,
                    Happening::RemoveFailed { .. } => life.phase == Phase::Removing,
                    _ => true,
                };
                if !fits {
                    continue;
                }
                match life.on(policy(restart), happening.clone()) {
                    Err(refusal) => prop_assert!(refusal != Refusal::AlreadyRunning || happening == Happening::StartAsked),
                    Ok((next, actions)) => {
                        prop_assert_eq!(actions.contains(&Action::Launch), next.phase == Phase::Starting && life.phase != Phase::Starting);
                        prop_assert_eq!(actions.contains(&Action::Remove), next.phase == Phase::Removing && life.phase != Phase::Removing);
                        prop_assert!(!(restart == RestartPolicy::No && next.phase == Phase::Restarting));
                        let ended = life.pid().is_some() && next.pid().is_none();
                        prop_assert_eq!(ended, actions.contains(&Action::TellDied) && life.phase != Phase::Starting);
                        prop_assert!(next.restart_delay_ms <= 60_000);
                        life = next;
                    }
                }
            }
        }
    }
}
