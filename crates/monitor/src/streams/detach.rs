//! Finds the detach keys in a client's input.

use monitor_protocol::DetachKeys;

/// Looks for the keys; a beginning of them is held back until it is clear what it was.
#[derive(Debug, Default)]
pub(super) struct DetachFilter {
    keys: DetachKeys,
    /// How many of the keys have been seen and are held back.
    held: usize,
}

/// What came of some input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pressed {
    /// No detach keys, so far.
    Nothing,
    /// The client wants to leave.
    Detach,
}

impl DetachFilter {
    /// Looks for `keys`; finds nothing when there are none.
    pub(super) fn new(keys: DetachKeys) -> DetachFilter {
        DetachFilter { keys, held: 0 }
    }

    /// Appends to `out` what the process should see of `input`. What follows the keys is dropped.
    pub(super) fn pass(&mut self, input: &[u8], out: &mut Vec<u8>) -> Pressed {
        if self.keys.is_empty() {
            out.extend_from_slice(input);
            return Pressed::Nothing;
        }
        for byte in input {
            if self.take(*byte, out) == Pressed::Detach {
                return Pressed::Detach;
            }
        }
        Pressed::Nothing
    }

    fn take(&mut self, byte: u8, out: &mut Vec<u8>) -> Pressed {
        let keys = self.keys.as_bytes();
        while self.held > 0 && keys[self.held] != byte {
            let kept = longest_restart(&keys[..self.held]);
            out.extend_from_slice(&keys[..self.held - kept]);
            self.held = kept;
        }
        if keys[self.held] != byte {
            out.push(byte);
            return Pressed::Nothing;
        }
        self.held += 1;
        if self.held < keys.len() {
            return Pressed::Nothing;
        }
        self.held = 0;
        Pressed::Detach
    }
}

/// How much of the end of `seen`, less than all of it, is a beginning of it again.
fn longest_restart(seen: &[u8]) -> usize {
    (1..seen.len()).rev().find(|length| seen.ends_with(&seen[..*length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(keys: &str, pieces: &[&str]) -> (String, Pressed) {
        let mut filter = DetachFilter::new(DetachKeys::parse(keys).unwrap());
        let mut out = Vec::new();
        let mut pressed = Pressed::Nothing;
        for piece in pieces {
            pressed = filter.pass(piece.as_bytes(), &mut out);
            if pressed == Pressed::Detach {
                break;
            }
        }
        (String::from_utf8(out).unwrap(), pressed)
    }

    #[test]
    fn keys_are_found_and_the_rest_passes() {
        let table: [(&str, &[&str], &str, Pressed); 9] = [
            ("ctrl-p,ctrl-q", &["abc"], "abc", Pressed::Nothing),
            ("ctrl-p,ctrl-q", &["ab\x10\x11cd"], "ab", Pressed::Detach),
            ("ctrl-p,ctrl-q", &["ab\x10", "\x11"], "ab", Pressed::Detach),
            ("ctrl-p,ctrl-q", &["ab\x10"], "ab", Pressed::Nothing),
            ("ctrl-p,ctrl-q", &["ab\x10", "c"], "ab\x10c", Pressed::Nothing),
            ("ctrl-p,ctrl-q", &["\x10\x10", "\x11"], "\x10", Pressed::Detach),
            ("a,a,b", &["aaab"], "a", Pressed::Detach),
            ("a,b,a,c", &["ababac"], "ab", Pressed::Detach),
            ("q", &["xq"], "x", Pressed::Detach),
        ];
        for (keys, pieces, out, pressed) in table {
            assert_eq!(pass(keys, pieces), (out.to_owned(), pressed), "{keys} {pieces:?}");
        }
    }

    #[test]
    fn without_keys_everything_passes() {
        let mut out = Vec::new();
        assert_eq!(DetachFilter::default().pass(b"\x10\x11", &mut out), Pressed::Nothing);
        assert_eq!(out, b"\x10\x11");
    }
}
