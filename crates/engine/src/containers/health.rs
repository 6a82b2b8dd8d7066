//! Health checks: a task per container that probes (by a command in it, or from here) and reports to the actor.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::actor::Command;
use super::handle::Handle;
use super::probe::Probe;
use super::record::ContainerRecord;
use crate::engine::Engine;
use crate::model::{Health, HealthProbe, HealthStatus, Healthcheck, Status};
use crate::moment;

/// Docker's defaults and limits.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_START_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_RETRIES: u32 = 3;
const LOG_LENGTH: usize = 5;
/// How far apart the moments are at most at which connections are tried.
const LONGEST_STEP: Duration = Duration::from_millis(50);

/// A running check; dropping it ends the task.
#[derive(Debug)]
pub(super) struct Watch(AbortHandle);

/// How it is found out.
#[derive(Debug)]
enum Means {
    /// A command in the container.
    Command(Vec<String>),
    /// A connection into its network namespace.
    Connection(Probe, Arc<OwnedFd>),
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The state before the first probe.
pub(super) fn starting() -> Health {
    Health { status: HealthStatus::Starting, failing_streak: 0, log: Vec::new() }
}

/// Starts to check, if there is something to check.
pub(super) fn watch(engine: &Engine, handle: &Arc<Handle>, record: &ContainerRecord) -> Option<Watch> {
    let check = record.spec.healthcheck.clone().unwrap_or_default();
    let means = match Probe::of(&record.spec) {
        // Checked at create.
        Ok(Some(probe)) => connection(probe, handle)?,
        Ok(None) | Err(_) => Means::Command(command(&check, record.spec.shell.as_deref())?),
    };
    let task = tokio::spawn(run(engine.clone(), Arc::clone(handle), check, means));
    Some(Watch(task.abort_handle()))
}

fn connection(probe: Probe, handle: &Handle) -> Option<Means> {
    let pid = handle.live()?.pid.unsigned_abs();
    let opened = network::namespace_of(pid)
        .inspect_err(|error| tracing::warn!("container {}: its health cannot be watched: {error}", handle.id));
    Some(Means::Connection(probe, Arc::new(opened.ok()?)))
}

impl Means {
    /// Waits until it is time for the next check.
    async fn wait(&self, interval: Duration) {
        match self {
            // Processes that all start at once would stand in each other's way.
            Self::Command(_) => tokio::time::sleep(interval).await,
            Self::Connection(..) => tokio::time::sleep_until(in_step(interval)).await,
        }
    }

    async fn probe(&self, engine: &Engine, handle: &Handle, timeout: Duration) -> (i32, String) {
        match self {
            Self::Command(command) => engine.probe(handle, command, timeout).await,
            Self::Connection(probe, namespace) => {
                let probing = tokio::time::timeout(timeout, probe.run(Arc::clone(namespace)));
                probing.await.unwrap_or_else(|_| (-1, format!("Health check exceeded timeout ({timeout:?})")))
            }
        }
    }
}

/// The probe's command; none when there is no check.
fn command(check: &Healthcheck, shell: Option<&[String]>) -> Option<Vec<String>> {
    match check.test.first().map(String::as_str) {
        Some("CMD") if check.test.len() > 1 => Some(check.test[1..].to_vec()),
        Some("CMD-SHELL") => {
            let default = ["/bin/sh".to_owned(), "-c".to_owned()];
            let shell = shell.filter(|shell| !shell.is_empty()).unwrap_or(&default);
            Some(shell.iter().cloned().chain([check.test[1..].join(" ")]).collect())
        }
        _ => None,
    }
}

/// When an interval is over, or up to a twentieth of it earlier: together with checks of other containers. Whoever is in step has exactly
/// the interval from then on.
fn in_step(interval: Duration) -> Instant {
    moment::in_step(interval, (interval / 20).clamp(Duration::from_millis(1), LONGEST_STEP))
}

async fn run(engine: Engine, handle: Arc<Handle>, check: Healthcheck, means: Means) {
    let began = Instant::now();
    let start_period = nanoseconds(check.start_period_ns).unwrap_or_default();
    let timeout = nanoseconds(check.timeout_ns).unwrap_or(DEFAULT_TIMEOUT);
    let mut health = starting();
    let mut log = VecDeque::new();
    loop {
        let in_start_period = began.elapsed() < start_period && health.status == HealthStatus::Starting;
        means.wait(interval(&check, in_start_period)).await;
        if handle.view().state.status == Status::Paused {
            // Frozen is not ill.
            continue;
        }
        let start = Timestamp::now();
        let (exit_code, output) = means.probe(&engine, &handle, timeout).await;
        if log.len() == LOG_LENGTH {
            log.pop_front();
        }
        log.push_back(HealthProbe { start, end: Timestamp::now(), exit_code, output });
        let forgiving = began.elapsed() < start_period;
        health = judge(&health, exit_code, retries(&check), forgiving);
        health.log = log.iter().cloned().collect();
        let report = Command::Health { health: Box::new(health.clone()) };
        if handle.command(report).await.is_err() {
            return;
        }
    }
}

/// What one more result means. While starting up, failures do not count.
fn judge(before: &Health, exit_code: i32, retries: u32, forgiving: bool) -> Health {
    let mut health = before.clone();
    if exit_code == 0 {
        (health.status, health.failing_streak) = (HealthStatus::Healthy, 0);
        return health;
    }
    let still_starting = forgiving && health.status == HealthStatus::Starting;
    if !still_starting {
        health.failing_streak += 1;
        if health.failing_streak >= retries {
            health.status = HealthStatus::Unhealthy;
        }
    }
    health
}

fn retries(check: &Healthcheck) -> u32 {
    u32::try_from(check.retries).ok().filter(|retries| *retries > 0).unwrap_or(DEFAULT_RETRIES)
}

fn interval(check: &Healthcheck, in_start_period: bool) -> Duration {
    if in_start_period {
        nanoseconds(check.start_interval_ns).unwrap_or(DEFAULT_START_INTERVAL)
    } else {
        nanoseconds(check.interval_ns).unwrap_or(DEFAULT_INTERVAL)
    }
}

fn nanoseconds(value: i64) -> Option<Duration> {
    u64::try_from(value).ok().filter(|value| *value > 0).map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{command, in_step, judge, starting};
    use crate::model::{HealthStatus, Healthcheck};

    #[test]
    fn failures_count_only_after_the_start_period() {
        let forgiven = judge(&starting(), 1, 1, true);
        assert_eq!((forgiven.status, forgiven.failing_streak), (HealthStatus::Starting, 0));
        let once = judge(&forgiven, 1, 2, false);
        assert_eq!((once.status, once.failing_streak), (HealthStatus::Starting, 1));
        let twice = judge(&once, 1, 2, false);
        assert_eq!(twice.status, HealthStatus::Unhealthy);
        let well = judge(&twice, 0, 2, false);
        assert_eq!((well.status, well.failing_streak), (HealthStatus::Healthy, 0));
    }

    #[test]
    fn intervals_that_begin_close_together_end_together() {
        for interval in [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(30)] {
            let now = Instant::now();
            let first = in_step(interval);
            let late = now.elapsed();
            assert!(first <= now + interval + late, "never late");
            assert!(first + interval / 20 >= now + interval, "not much too early");
            let ends: std::collections::HashSet<_> = (0..100).map(|_| in_step(interval)).collect();
            assert!(ends.len() < 100, "{interval:?}: {}", ends.len());
        }
    }

    #[test]
    fn commands_are_read_as_docker_reads_them() {
        let of = |test: &[&str]| {
            let test = test.iter().map(|word| (*word).to_owned()).collect();
            command(&Healthcheck { test, ..Healthcheck::default() }, None)
        };
        assert_eq!(of(&["CMD", "a", "b"]).unwrap(), ["a", "b"]);
        assert_eq!(of(&["CMD-SHELL", "exit 0"]).unwrap(), ["/bin/sh", "-c", "exit 0"]);
        assert!(of(&["NONE"]).is_none() && of(&[]).is_none());
    }
}
