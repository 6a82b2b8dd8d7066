//! The forms of the kernel's files.

use std::collections::BTreeMap;

use super::{BlockIoEntry, Pressure, PressureLine, RdmaEntry};

/// Lines of a key and a number.
pub(super) fn keyed(content: &str) -> impl Iterator<Item = (&str, u64)> {
    content.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, value.trim_ascii().parse().ok()?))
    })
}

/// Numbers between spaces, as v1 writes a number for each processor.
pub(super) fn numbers(content: &str) -> Vec<u64> {
    content.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// v1's `8:0 Read 4096`, with a `Total` of everything at the end that has no device.
pub(super) fn block_io_v1(content: &str) -> Vec<BlockIoEntry> {
    let entry = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (major, minor) = device(words.next()?)?;
        let operation = words.next()?.to_owned();
        Some(BlockIoEntry { major, minor, operation, value: words.next()?.parse().ok()? })
    };
    content.lines().filter_map(entry).collect()
}

/// v2's `8:0 rbytes=4096 wbytes=0 rios=1 …`; the keys' operations are those that Docker shows.
pub(super) fn block_io_v2(content: &str, keys: &[(&str, &str)]) -> Vec<BlockIoEntry> {
    let mut entries = Vec::new();
    for line in content.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let operation = keys.iter().find_map(|(known, operation)| (*known == key).then_some(*operation));
            if let (Some(operation), Ok(value)) = (operation, value.parse()) {
                entries.push(BlockIoEntry { major, minor, operation: operation.to_owned(), value });
            }
        }
    }
    entries
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and `full` likewise.
pub(super) fn pressure(content: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in content.lines() {
        match line.split_once(' ') {
            Some(("some", rest)) => pressure.some = pressure_line(rest),
            Some(("full", rest)) => pressure.full = pressure_line(rest),
            _ => {}
        }
    }
    pressure
}

/// `mlx4_0 hca_handle=2 hca_object=2000`
pub(super) fn rdma(content: &str) -> BTreeMap<String, RdmaEntry> {
    let entry = |line: &str| {
        let (name, rest) = line.split_once(' ')?;
        let number = |key| {
            rest.split_ascii_whitespace()
                .find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
                .unwrap_or(0)
        };
        Some((name.to_owned(), RdmaEntry { hca_handles: number("hca_handle"), hca_objects: number("hca_object") }))
    };
    content.lines().filter_map(entry).collect()
}

fn pressure_line(rest: &str) -> PressureLine {
    let value = |key: &str| rest.split_ascii_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let share = |key| value(key).and_then(|text| text.parse().ok()).unwrap_or(0.0);
    PressureLine {
        avg10: share("avg10"),
        avg60: share("avg60"),
        avg300: share("avg300"),
        total_us: value("total").and_then(|text| text.parse().ok()).unwrap_or(0),
    }
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_io_of_both_versions() {
        let v1 = block_io_v1("8:0 Read 4096\n8:0 Write 0\n8:0 Total 4096\nTotal 4096\n");
        assert_eq!(v1.len(), 3);
        assert_eq!(v1[0], BlockIoEntry { major: 8, minor: 0, operation: "Read".to_owned(), value: 4096 });
        let v2 = block_io_v2("8:0 rbytes=1 wbytes=2 rios=3\n253:1\n", &[("rbytes", "read"), ("wbytes", "write")]);
        assert_eq!(
            v2.iter().map(|entry| (entry.operation.as_str(), entry.value)).collect::<Vec<_>>(),
            [("read", 1), ("write", 2)]
        );
    }

    #[test]
    fn pressure_has_two_lines() {
        let parsed = pressure(
            "some avg10=1.50 avg60=0.25 avg300=0.00 total=17\nfull avg10=0.10 avg60=0.00 avg300=0.00 total=3\n",
        );
        assert_eq!((parsed.some.avg10, parsed.some.avg60, parsed.some.total_us), (1.5, 0.25, 17));
        assert_eq!((parsed.full.avg10, parsed.full.total_us), (0.1, 3));
    }

    #[test]
    fn rdma_and_keys() {
        assert_eq!(
            rdma("mlx4_0 hca_handle=2 hca_object=max\n")["mlx4_0"],
            RdmaEntry { hca_handles: 2, hca_objects: 0 }
        );
        assert_eq!(keyed("a 1\nb x\nc 3\n").collect::<Vec<_>>(), [("a", 1), ("c", 3)]);
        assert_eq!(numbers("1 2 \n"), [1, 2]);
    }
}
