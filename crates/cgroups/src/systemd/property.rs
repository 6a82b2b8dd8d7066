//! Limits and annotations as properties of units.

use oci::runtime::{LinuxCpu, LinuxDeviceCgroup, LinuxMemory, LinuxResources};

use super::wire::{Property, Value};
use crate::controller::Version;
use crate::devices::systemd_allow_list;
use crate::limits::{cpu_weight_of_shares, swap_max_of};

const SECOND_US: u64 = 1_000_000;
const DEFAULT_PERIOD_US: u64 = 100_000;
/// systemd rounds quotas to this, and tells by the rounding whether one has changed.
const QUOTA_STEP_US: u64 = 10_000;
/// systemd's "no limit".
const INFINITY: u64 = u64::MAX;

/// The limits for which units have properties.
pub(super) fn resource_properties(version: Version, resources: &LinuxResources) -> Vec<Property> {
    let mut properties = Vec::new();
    if let Some(memory) = &resources.memory {
        append_memory(&mut properties, version, memory);
    }
    if let Some(cpu) = &resources.cpu {
        append_cpu(&mut properties, version, cpu);
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        let limit = match limit {
            0 => 1,
            1.. => limit.unsigned_abs(),
            _ => INFINITY,
        };
        push(&mut properties, "TasksMax", Some(limit));
    }
    if let Some(weight) = resources.block_io.as_ref().and_then(|block_io| block_io.weight).filter(|weight| *weight != 0)
    {
        let name = if version == Version::V1 { "BlockIOWeight" } else { "IOWeight" };
        push(&mut properties, name, Some(u64::from(weight)));
    }
    if version == Version::V2 {
        resources.unified.iter().for_each(|(file, value)| append_unified(&mut properties, file, value));
    }
    properties
}

/// The device rules, which systemd writes anew in v1 whenever it is reloaded: what it has not been told it would allow.
///
/// v2's program is beside systemd's and is not touched.
pub(super) fn device_properties(version: Version, rules: &[LinuxDeviceCgroup]) -> Vec<Property> {
    // Rules that cannot be kept are reported when they are written.
    let allowed = match (version, systemd_allow_list(rules)) {
        (Version::V1, Ok(Some(allowed))) => allowed,
        _ => return Vec::new(),
    };
    let property = |name: &str, value| (name.to_owned(), value);
    vec![
        property("DevicePolicy", Value::Text("strict".to_owned())),
        // An empty list forgets what was there.
        property("DeviceAllow", Value::Pairs(Vec::new())),
        property("DeviceAllow", Value::Pairs(allowed)),
    ]
}

/// A file of v2's that a unit has a property for. Values that make no sense are reported when the file is written.
fn append_unified(properties: &mut Vec<Property>, file: &str, value: &str) {
    let number = |value: &str| if value.trim() == "max" { Some(INFINITY) } else { value.trim().parse().ok() };
    let name = match file {
        "memory.max" => "MemoryMax",
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.min" => "MemoryMin",
        "memory.swap.max" => "MemorySwapMax",
        "pids.max" => "TasksMax",
        "cpu.weight" => "CPUWeight",
        "io.weight" => "IOWeight",
        "cpuset.cpus" => return push_cpus(properties, "AllowedCPUs", value),
        "cpuset.mems" => return push_cpus(properties, "AllowedMemoryNodes", value),
        "cpu.max" => return append_cpu_max(properties, value),
        _ => return,
    };
    push(properties, name, number(value.strip_prefix("default ").unwrap_or(value)));
}

/// `max`, `50000` or `50000 100000`.
fn append_cpu_max(properties: &mut Vec<Property>, value: &str) {
    let mut words = value.split_ascii_whitespace();
    let quota = match words.next() {
        Some("max") => Some(-1),
        word => word.and_then(|word| word.parse().ok()).filter(|quota| *quota > 0),
    };
    let period = words.next().and_then(|word| word.parse().ok()).filter(|period| *period != 0);
    push(properties, "CPUQuotaPeriodUSec", period);
    let per_second = quota.and_then(|quota| quota_per_second(quota, period.unwrap_or(DEFAULT_PERIOD_US)));
    push(properties, "CPUQuotaPerSecUSec", per_second);
}

/// A property in GVariant's text form, as annotations have it: `true`, `5`, `uint64 5`, `'text'`, `['a', 'b']`.
///
/// `NAMESec` counts seconds and becomes systemd's `NAMEUSec`.
pub(super) fn parse_property(name: &str, text: &str) -> Option<Property> {
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let value = parse_value(text.trim()).filter(|_| is_name)?;
    match (name.strip_suffix("Sec"), &value) {
        (Some(base), _) if !base.ends_with('U') => Some((format!("{base}USec"), microseconds(&value)?)),
        _ => Some((name.to_owned(), value)),
    }
}

fn append_memory(properties: &mut Vec<Property>, version: Version, memory: &LinuxMemory) {
    let bytes = |limit: i64| match limit {
        0 => None,
        1.. => Some(limit.unsigned_abs()),
        _ => Some(INFINITY),
    };
    let limit = memory.limit.and_then(bytes);
    match version {
        Version::V1 => push(properties, "MemoryLimit", limit),
        Version::V2 => {
            push(properties, "MemoryMax", limit);
            push(properties, "MemoryLow", memory.reservation.and_then(bytes));
            // Contradictions are reported when the files are written.
            let swap = swap_max_of(memory).ok().flatten();
            push(properties, "MemorySwapMax", swap.map(|swap| if swap < 0 { INFINITY } else { swap.unsigned_abs() }));
        }
    }
}

fn append_cpu(properties: &mut Vec<Property>, version: Version, cpu: &LinuxCpu) {
    let shares = cpu.shares.filter(|shares| *shares != 0);
    match version {
        Version::V1 => push(properties, "CPUShares", shares),
        Version::V2 => {
            push(properties, "CPUWeight", shares.map(cpu_weight_of_shares));
            push_cpus(properties, "AllowedCPUs", &cpu.cpus);
            push_cpus(properties, "AllowedMemoryNodes", &cpu.mems);
        }
    }
    let period = cpu.period.filter(|period| *period != 0);
    push(properties, "CPUQuotaPeriodUSec", period);
    push(
        properties,
        "CPUQuotaPerSecUSec",
        cpu.quota.and_then(|quota| quota_per_second(quota, period.unwrap_or(DEFAULT_PERIOD_US))),
    );
}

fn quota_per_second(quota: i64, period: u64) -> Option<u64> {
    match quota {
        0 => None,
        1.. => {
            let exact = quota.unsigned_abs().saturating_mul(SECOND_US) / period;
            Some(exact.checked_next_multiple_of(QUOTA_STEP_US).unwrap_or(INFINITY))
        }
        _ => Some(INFINITY),
    }
}

fn push(properties: &mut Vec<Property>, name: &str, value: Option<u64>) {
    properties.extend(value.map(|value| (name.to_owned(), Value::U64(value))));
}

fn push_cpus(properties: &mut Vec<Property>, name: &str, list: &str) {
    // A malformed list is reported when the file is written.
    if let Some(mask) = cpu_mask(list).filter(|mask| !mask.is_empty()) {
        properties.push((name.to_owned(), Value::Bytes(mask)));
    }
}

/// `0-2,7` as a bit for each number.
fn cpu_mask(list: &str) -> Option<Vec<u8>> {
    const NUMBER_MAX: usize = 8192;
    let mut mask = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        if first > last || last > NUMBER_MAX {
            return None;
        }
        mask.resize(mask.len().max(last / 8 + 1), 0);
        (first..=last).for_each(|number| mask[number / 8] |= 1 << (number % 8));
    }
    Some(mask)
}

fn parse_value(text: &str) -> Option<Value> {
    if let Some(text) = quoted(text) {
        return Some(Value::Text(text.to_owned()));
    }
    if let Some(list) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let texts = list.split(',').map(str::trim).filter(|item| !item.is_empty());
        return texts.map(|item| quoted(item).map(str::to_owned)).collect::<Option<Vec<_>>>().map(Value::Texts);
    }
    match text.split_once(' ') {
        Some(("uint64", number)) => number.trim().parse().ok().map(Value::U64),
        Some(("int64", number)) => number.trim().parse().ok().map(Value::I64),
        Some(("uint32", number)) => number.trim().parse().ok().map(Value::U32),
        Some(("int32", number)) => number.trim().parse().ok().map(Value::I32),
        Some(("boolean", word)) => word.trim().parse().ok().map(Value::Bool),
        Some(_) => None,
        None => text.parse().map(Value::Bool).ok().or_else(|| text.parse().map(Value::I32).ok()),
    }
}

fn quoted(text: &str) -> Option<&str> {
    ['\'', '"'].into_iter().find_map(|quote| {
        let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
        (!inner.contains(quote) && !inner.contains('\\')).then_some(inner)
    })
}

fn microseconds(value: &Value) -> Option<Value> {
    let seconds = match value {
        Value::U64(number) => *number,
        Value::U32(number) => u64::from(*number),
        Value::I64(number) => u64::try_from(*number).ok()?,
        Value::I32(number) => u64::try_from(*number).ok()?,
        _ => return None,
    };
    seconds.checked_mul(SECOND_US).map(Value::U64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::runtime::{LinuxDeviceCgroupType, LinuxPids};

    fn properties(version: Version, resources: &LinuxResources) -> Vec<String> {
        resource_properties(version, resources).into_iter().map(|(name, value)| format!("{name}={value:?}")).collect()
    }

    #[test]
    fn limits_become_properties() {
        let resources = LinuxResources {
            memory: Some(LinuxMemory { limit: Some(1000), swap: Some(3000), ..LinuxMemory::default() }),
            cpu: Some(LinuxCpu {
                shares: Some(512),
                quota: Some(55_555),
                cpus: "0-1,9".to_owned(),
                ..LinuxCpu::default()
            }),
            pids: Some(LinuxPids { limit: Some(-1) }),
            ..LinuxResources::default()
        };
        assert_eq!(
            properties(Version::V2, &resources),
            [
                "MemoryMax=U64(1000)",
                "MemorySwapMax=U64(2000)",
                "CPUWeight=U64(59)",
                "AllowedCPUs=Bytes([3, 2])",
                "CPUQuotaPerSecUSec=U64(560000)",
                "TasksMax=U64(18446744073709551615)"
            ]
        );
        assert_eq!(
            properties(Version::V1, &resources),
            [
                "MemoryLimit=U64(1000)",
                "CPUShares=U64(512)",
                "CPUQuotaPerSecUSec=U64(560000)",
                "TasksMax=U64(18446744073709551615)"
            ]
        );
    }

    #[test]
    fn files_of_v2_become_properties() {
        let pairs = [
            ("memory.max", "max"),
            ("memory.high", "100"),
            ("cpu.max", "50000 100000"),
            ("cpuset.cpus", "0-1"),
            ("io.weight", "default 50"),
            ("pids.max", "nonsense"),
            ("hugetlb.2MB.max", "0"),
        ];
        let unified = pairs.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect();
        let resources = LinuxResources { unified, ..LinuxResources::default() };
        assert_eq!(
            properties(Version::V2, &resources),
            [
                "CPUQuotaPeriodUSec=U64(100000)",
                "CPUQuotaPerSecUSec=U64(500000)",
                "AllowedCPUs=Bytes([3])",
                "IOWeight=U64(50)",
                "MemoryHigh=U64(100)",
                "MemoryMax=U64(18446744073709551615)",
            ]
        );
        assert_eq!(properties(Version::V1, &resources), [""; 0]);
    }

    #[test]
    fn device_rules_become_a_list() {
        let rule = |allow, major, minor| LinuxDeviceCgroup {
            allow,
            kind: LinuxDeviceCgroupType::Block,
            major,
            minor,
            access: "r".to_owned(),
        };
        let list = |rules: &[LinuxDeviceCgroup]| match device_properties(Version::V1, rules).pop() {
            Some((name, Value::Pairs(pairs))) if name == "DeviceAllow" => pairs,
            other => panic!("{other:?}"),
        };
        let pair = |device: &str, access: &str| (device.to_owned(), access.to_owned());
        let allowed = list(&[rule(true, Some(8), Some(0)), rule(true, Some(9), None)]);
        for pair in [pair("/dev/block/8:0", "r"), pair("block-9", "r"), pair("char-*", "m"), pair("char-136", "rwm")] {
            assert!(allowed.contains(&pair), "{pair:?} in {allowed:?}");
        }
        assert!(device_properties(Version::V2, &[]).is_empty());
        let everything =
            LinuxDeviceCgroup { kind: LinuxDeviceCgroupType::All, access: String::new(), ..rule(true, None, None) };
        assert!(device_properties(Version::V1, &[everything]).is_empty());
    }

    #[test]
    fn annotations_are_gvariant_text() {
        let parse = |name, text| parse_property(name, text).map(|(name, value)| format!("{name}={value:?}"));
        for (name, text, expected) in [
            ("CollectMode", "'inactive-or-failed'", Some("CollectMode=Text(\"inactive-or-failed\")")),
            ("TimeoutStopUSec", "uint64 5", Some("TimeoutStopUSec=U64(5)")),
            ("TimeoutStopSec", "5", Some("TimeoutStopUSec=U64(5000000)")),
            ("SendSIGHUP", "true", Some("SendSIGHUP=Bool(true)")),
            ("After", "['a.service', \"b.service\"]", Some("After=Texts([\"a.service\", \"b.service\"])")),
            ("X", "int32 -1", Some("X=I32(-1)")),
            ("X", "'a\\'b'", None),
            ("X", "nonsense", None),
            ("TimeoutSec", "-5", None),
            ("bad-name", "true", None),
        ] {
            assert_eq!(parse(name, text).as_deref(), expected, "{name}={text}");
        }
    }

    #[test]
    fn cpu_lists() {
        assert_eq!(cpu_mask(""), Some(Vec::new()));
        assert_eq!(cpu_mask("0,8-9"), Some(vec![1, 3]));
        for bad in ["a", "3-1", "0-99999999", "1-"] {
            assert_eq!(cpu_mask(bad), None, "{bad}");
        }
    }
}
