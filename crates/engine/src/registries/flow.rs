//! How fast layers come, and what keeps them from coming faster.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::model::{FlowLimit, PullFlow};

/// A share of all processors' time, in percent, from which on they count as busy.
const BUSY_PERCENT: u128 = 80;

/// How the bytes of one layer flowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flow {
    /// Bytes as the registry keeps them.
    pub(super) fetched_bytes: u64,
    /// Bytes of the layer's tar.
    pub(super) tar_bytes: u64,
    /// From the request to the layer's name.
    pub(super) elapsed: Duration,
    /// How long the work stood still because nothing came.
    pub(super) waited_for_network: Duration,
    /// How long it stood still because the disk had not taken what came before.
    pub(super) waited_for_disk: Duration,
}

impl Flow {
    /// As a client is told.
    pub(super) fn of_layer(self, id: String) -> PullFlow {
        self.told(Some(id), self.limit())
    }

    fn limit(&self) -> FlowLimit {
        let working = self.elapsed.saturating_sub(self.waited_for_network + self.waited_for_disk);
        if self.waited_for_network >= working.max(self.waited_for_disk) {
            FlowLimit::Network
        } else if self.waited_for_disk >= working {
            FlowLimit::Disk
        } else {
            FlowLimit::Processor
        }
    }

    fn told(self, layer: Option<String>, limit: FlowLimit) -> PullFlow {
        let Flow { fetched_bytes, tar_bytes, elapsed, .. } = self;
        PullFlow { layer, fetched_bytes, tar_bytes, elapsed, limit }
    }
}

/// Several layers that come at the same time.
#[derive(Debug)]
pub(super) struct Total {
    begun: Instant,
    processor: Duration,
    layers: Vec<Flow>,
}

impl Total {
    pub(super) fn begin() -> Total {
        Total { begun: Instant::now(), processor: processor_time(), layers: Vec::new() }
    }

    pub(super) fn add(&mut self, flow: Flow) {
        self.layers.push(flow);
    }

    /// How all of them flowed together, if any did.
    pub(super) fn end(self) -> Option<PullFlow> {
        if self.layers.is_empty() {
            return None;
        }
        let elapsed = self.begun.elapsed();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let is_busy = is_busy(processor_time().saturating_sub(self.processor), elapsed, processors);
        let sum = self.layers.iter().fold(Flow::default(), |sum, flow| Flow {
            fetched_bytes: sum.fetched_bytes + flow.fetched_bytes,
            tar_bytes: sum.tar_bytes + flow.tar_bytes,
            elapsed: sum.elapsed + flow.elapsed,
            waited_for_network: sum.waited_for_network + flow.waited_for_network,
            waited_for_disk: sum.waited_for_disk + flow.waited_for_disk,
        });
        // A layer also waits for the network while others have the processors that would read from it.
        let limit = if is_busy { FlowLimit::Processor } else { sum.limit() };
        Some(Flow { elapsed, ..sum }.told(None, limit))
    }
}

fn is_busy(used: Duration, elapsed: Duration, processors: usize) -> bool {
    used.as_nanos() * 100 >= elapsed.as_nanos() * processors as u128 * BUSY_PERCENT
}

/// What this process has used of all processors so far.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(network: u64, disk: u64) -> FlowLimit {
        let seconds = Duration::from_secs;
        let (waited_for_network, waited_for_disk) = (seconds(network), seconds(disk));
        Flow { elapsed: seconds(10), waited_for_network, waited_for_disk, ..Flow::default() }.limit()
    }

    #[test]
    fn what_takes_most_of_the_time_is_the_limit() {
        assert_eq!(limit(0, 0), FlowLimit::Processor);
        assert_eq!(limit(3, 3), FlowLimit::Processor);
        assert_eq!(limit(6, 1), FlowLimit::Network);
        assert_eq!(limit(1, 6), FlowLimit::Disk);
        assert_eq!(limit(4, 4), FlowLimit::Network);
        let seconds = Duration::from_secs;
        assert!(is_busy(seconds(17), seconds(10), 2) && !is_busy(seconds(15), seconds(10), 2));
    }

    #[test]
    fn layers_add_up_and_nothing_is_nothing() {
        assert_eq!(Total::begin().end(), None);
        let mut total = Total::begin();
        for _ in 0..2 {
            total.add(Flow { fetched_bytes: 1, tar_bytes: 3, ..Flow::default() });
        }
        let sum = total.end().unwrap();
        assert_eq!((sum.layer, sum.fetched_bytes, sum.tar_bytes), (None, 2, 6));
    }
}
