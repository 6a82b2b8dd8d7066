//! What fuzz targets and property tests ask of limits, without a cgroup.

use oci::runtime::LinuxResources;

use crate::Version;
use crate::limits::plan;

/// Plans the writes of limits for every kind of machine: each goes to a file of the cgroup's own directory.
pub fn limits(resources: &LinuxResources) {
    for version in [None, Some(Version::V1), Some(Version::V2)] {
        let Ok(plan) = plan(resources, &|_| version) else { continue };
        let files = plan.batches.iter().flat_map(|batch| &batch.writes).map(|write| write.file.as_ref());
        for file in files.chain(plan.unified.iter().map(|(file, _)| file.as_str())) {
            assert!(!file.is_empty() && !file.contains(['/', '\0']) && file != "." && file != "..", "{file:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use oci::runtime::LinuxHugepageLimit;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_write_stays_in_the_cgroup(
            size in prop_oneof!["[0-9]{0,4}[KMG]B", "[0-9./KMGB]{0,8}"],
            file in prop_oneof!["[a-z.]{0,12}", "[a-z./]{0,12}"],
            value in any::<u64>(),
        ) {
            limits(&LinuxResources {
                hugepage_limits: vec![LinuxHugepageLimit { page_size: size, limit: value }],
                unified: [(file, value.to_string())].into(),
                ..LinuxResources::default()
            });
        }
    }
}
