//! What an SBOM is made of besides the image: stages that it was made from and the context, where the Dockerfile asks for it by BuildKit's
//! arguments (`ARG BUILDKIT_SBOM_SCAN_STAGE=true`).

use oci::DiffId;

use crate::build::Build;
use crate::config::State;
use crate::error::BuildError;

const CONTEXT: &str = "BUILDKIT_SBOM_SCAN_CONTEXT";
const STAGE: &str = "BUILDKIT_SBOM_SCAN_STAGE";

/// Files that went into an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingredient {
    /// The stage, or `context`.
    pub name: String,
    /// Its files, lowest layer first.
    pub layers: Vec<DiffId>,
}

impl Build<'_> {
    /// What is to be looked at besides the target, whose state this is.
    pub(crate) fn ingredients(&self, target: usize, state: &State) -> Result<Vec<Ingredient>, BuildError> {
        let mut all = Vec::new();
        if self.request.scan_ingredients && self.is_asked(CONTEXT, target, state) {
            let (layers, _) = self.context_as_layer(&self.context(None)?, "/")?;
            all.push(Ingredient { name: "context".to_owned(), layers });
        }
        if self.request.scan_ingredients {
            for index in self.needed_stages().filter(|index| *index != target) {
                let finish = self.stage_result(index)?;
                if self.is_asked(STAGE, index, &finish.state) {
                    let layers = finish.state.layers().to_vec();
                    self.require(&layers)?;
                    let name = self.own_name(index);
                    // Of several with one name the last, as with BuildKit.
                    all.retain(|one: &Ingredient| one.name != name);
                    all.push(Ingredient { name, layers });
                }
            }
        }
        Ok(all)
    }

    /// Whether a stage has an argument that is true, or names it. One that stands before all stages counts for each of them.
    fn is_asked(&self, argument: &str, index: usize, state: &State) -> bool {
        let declared = state.arguments.iter().rev().find(|(name, value)| name == argument && value.is_some());
        let declared = declared.and_then(|(_, value)| value.as_deref());
        declared.or(self.global.get(argument)).is_some_and(|value| names(value, &self.own_name(index)))
    }

    fn own_name(&self, index: usize) -> String {
        self.dockerfile.stages[index].name.clone().unwrap_or_else(|| format!("stage-{index}"))
    }
}

/// Whether a value is true, as Go reads it, or a list with this name.
fn names(value: &str, stage: &str) -> bool {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        list => list.split(',').any(|name| name == stage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_truths_or_names() {
        let cases = [("true", true), ("1", true), ("0", false), ("false", false), ("", false), ("a", false)];
        for (value, wanted) in cases.into_iter().chain([("build", true), ("a,build", true), ("a, build", false)]) {
            assert_eq!(names(value, "build"), wanted, "{value:?}");
        }
    }
}
