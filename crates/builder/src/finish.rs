//! Times in the history of an image. Steps that make a layer have the time at which the layer was made, be it in an earlier build;
//! the others have that of the layer before them. So what was built before gives the same image, byte for byte.

use crate::config::State;
use crate::time::Clock;

/// Fills in the times that the history does not have yet, and that of the image.
pub(crate) fn fill_times(state: &mut State, clock: Clock) {
    let history = &mut state.image.history;
    if let Some(fixed) = clock.fixed() {
        for step in history.iter_mut().filter(|step| step.created.is_none()) {
            step.created = Some(fixed.clone());
        }
        state.image.created = Some(fixed);
        return;
    }
    let mut current = first_of_own(history.iter().map(|step| step.created.as_deref())).map(str::to_owned);
    let mut seen_own = false;
    for step in history.iter_mut() {
        match &step.created {
            Some(time) if seen_own => current = Some(time.clone()),
            Some(_) => {}
            None => {
                seen_own = true;
                step.created.clone_from(&current);
            }
        }
    }
    state.image.created = history.iter().rev().find_map(|step| step.created.clone());
}

/// The time of the first layer after a step without time; else the last time that there is.
fn first_of_own<'a>(times: impl Iterator<Item = Option<&'a str>>) -> Option<&'a str> {
    let (mut last, mut seen_own) = (None, false);
    for time in times {
        match time {
            Some(time) => {
                last = Some(time);
                if seen_own {
                    break;
                }
            }
            None => seen_own = true,
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use oci::image::{History, Platform};

    use super::*;

    #[test]
    fn steps_without_a_time_get_that_of_a_layer() {
        let cases: &[(&[&str], &[&str])] = &[
            (&["b1", "", "n1", "", "n2", ""], &["b1", "n1", "n1", "n1", "n2", "n2"]),
            (&["b1", "b2", ""], &["b1", "b2", "b2"]),
            (&[""], &[""]),
        ];
        for (before, after) in cases {
            let mut state = State::empty(&Platform::host());
            let step = |time: &&str| History {
                created: Some((*time).to_owned()).filter(|t| !t.is_empty()),
                ..History::default()
            };
            state.image.history = before.iter().map(step).collect();
            fill_times(&mut state, Clock::new(None).unwrap());
            let times: Vec<&str> =
                state.image.history.iter().map(|step| step.created.as_deref().unwrap_or_default()).collect();
            assert_eq!(times, *after);
        }
    }
}
