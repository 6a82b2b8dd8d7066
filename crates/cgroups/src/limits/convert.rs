//! Values of v1, in which the specification speaks, as v2 wants them.

use super::ApplyError;

/// CPU shares (2 to 262144, usually 1024) as a weight (1 to 10000, usually 100).
///
/// The curve is runc 1.3's and newer: quadratic in the logarithm, so that minimum, default and maximum meet. Older runtimes scaled
/// linearly, which gave the default of v1 a weight of 39.
pub(crate) fn cpu_weight_of_shares(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1..=2 => 1,
        3..262_144 => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            // Rounding noise must not lift a weight that is whole: 1024 shares are exactly 100.
            (10_f64.powf(exponent) - 1e-9).ceil() as u64
        }
        _ => 10_000,
    }
}

/// A block I/O weight (10 to 1000) as `io.weight` (1 to 10000).
pub(super) fn io_weight(weight: u16) -> u64 {
    match u64::from(weight) {
        0 => 0,
        weight => 1 + weight.saturating_sub(10) * 9999 / 990,
    }
}

/// The limit of memory and swap together as a limit of swap alone: `None` leaves it alone, -1 lifts it.
pub(super) fn swap_max(limit: Option<i64>, memory_and_swap: Option<i64>) -> Result<Option<i64>, ApplyError> {
    let invalid = |reason: &str| Err(ApplyError::Invalid { field: "memory.swap", reason: reason.to_owned() });
    match (limit.unwrap_or(0), memory_and_swap.unwrap_or(0)) {
        // Memory without limit and swap not spoken of: swap without limit too.
        (-1, 0) => Ok(Some(-1)),
        (_, 0) => Ok(None),
        (_, -1) => Ok(Some(-1)),
        (0 | -1, _) => invalid("a swap limit needs a memory limit"),
        (limit, total) if limit < 0 || total < 0 => invalid("negative values other than -1 are not limits"),
        (limit, total) if total < limit => invalid("memory and swap together cannot be less than memory"),
        (limit, total) => Ok(Some(total - limit)),
    }
}

/// A limit in v2's words; zero means that it is not set, as in runc.
pub(super) fn limit_text(limit: i64) -> Option<String> {
    match limit {
        0 => None,
        1.. => Some(limit.to_string()),
        _ => Some("max".to_owned()),
    }
}
