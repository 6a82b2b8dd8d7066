//! The prose of `docker ps`.

use engine::model::{ContainerState, HealthStatus, Status};
use jiff::Timestamp;

/// `Up 3 seconds (healthy)`, `Exited (0) 2 minutes ago`, `Created`.
pub(crate) fn status(state: &ContainerState, now: Timestamp) -> String {
    let since = |then: Option<Timestamp>| then.map_or_else(String::new, |then| age(now.as_second() - then.as_second()));
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Running => match &state.health {
            Some(health) => format!("Up {} ({})", since(state.started_at), health_word(health.status)),
            None => format!("Up {}", since(state.started_at)),
        },
        Status::Paused => format!("Up {} (Paused)", since(state.started_at)),
        Status::Restarting => format!("Restarting ({}) {} ago", state.exit_code, since(state.finished_at)),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, since(state.finished_at)),
    }
}

fn health_word(status: HealthStatus) -> &'static str {
    match status {
        HealthStatus::Starting => "health: starting",
        HealthStatus::Healthy => "healthy",
        HealthStatus::Unhealthy => "unhealthy",
    }
}

/// A duration as people say it.
fn age(seconds: i64) -> String {
    let hours = (seconds + 1800) / 3600;
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{} minutes", seconds / 60),
        _ => match hours {
            ..=1 => "About an hour".to_owned(),
            2..48 => format!("{hours} hours"),
            48..336 => format!("{} days", hours / 24),
            336..1440 => format!("{} weeks", hours / 24 / 7),
            1440..17520 => format!("{} months", hours / 24 / 30),
            _ => format!("{} years", seconds / 3600 / 24 / 365),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_those_of_docker() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5399, "About an hour"),
            (5400, "2 hours"),
            (172_799, "2 days"),
            (170_000, "47 hours"),
            (14 * 86_400, "2 weeks"),
            (60 * 86_400, "2 months"),
            (730 * 86_400, "2 years"),
        ] {
            assert_eq!(age(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn each_state_has_its_sentence() {
        let now = Timestamp::new(1000, 0).unwrap();
        let then = Timestamp::new(990, 0).ok();
        let state = |status| ContainerState {
            status,
            pid: 0,
            exit_code: 3,
            error: String::new(),
            oom_killed: false,
            started_at: then,
            finished_at: then,
            health: None,
        };
        for (kind, text) in [
            (Status::Running, "Up 10 seconds"),
            (Status::Paused, "Up 10 seconds (Paused)"),
            (Status::Exited, "Exited (3) 10 seconds ago"),
            (Status::Created, "Created"),
            (Status::Restarting, "Restarting (3) 10 seconds ago"),
            (Status::Removing, "Removal In Progress"),
        ] {
            assert_eq!(status(&state(kind), now), text);
        }
    }
}
