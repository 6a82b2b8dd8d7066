//! Log tags: Go templates about a container.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotmpl::{MissingKey, Template, TemplateError, Value};

use crate::containers::ContainerRecord;
use crate::model::EngineError;

/// Docker's, where none is given.
pub(super) const DEFAULT_TAG: &str = "{{.ID}}";
/// What a template may name.
const FIELDS: [&str; 9] =
    ["ID", "FullID", "Name", "ImageID", "ImageFullID", "ImageName", "Command", "Hostname", "DaemonName"];

/// Whether a tag can be rendered.
pub(crate) fn check_tag(tag: &str) -> Result<(), EngineError> {
    execute(tag, |_| String::new()).map(drop)
}

/// A container's tag.
pub(super) fn render(tag: &str, record: &ContainerRecord) -> Result<String, EngineError> {
    execute(tag, |field| match field {
        "ID" => record.id.short().to_owned(),
        "FullID" => record.id.to_string(),
        "Name" => record.name.to_string(),
        "ImageID" => record.image_id.short(),
        "ImageFullID" => record.image_id.to_string(),
        "ImageName" => record.spec.image.clone(),
        "Command" => record.command.join(" "),
        "Hostname" => hostname(),
        _ => "docker".to_owned(),
    })
}

/// The host's name.
pub(super) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn execute(tag: &str, field: impl Fn(&str) -> String) -> Result<String, EngineError> {
    let wrong = |error: TemplateError| EngineError::invalid(format!("template: log-tag: {error} in {tag}"));
    let mut template = Template::new("log-tag").missing_key(MissingKey::Error);
    for (name, function) in FUNCTIONS {
        template = template.func(name, function);
    }
    let template = template.parse(tag).map_err(wrong)?;
    let fields = FIELDS.iter().map(|name| (Arc::from(*name), Value::String(field(name).as_str().into())));
    let fields: BTreeMap<Arc<str>, Value> = fields.collect();
    template.execute_to_string(&Value::Map(Arc::new(fields))).map_err(wrong)
}

type Function = fn(&[Value]) -> Result<Value, TemplateError>;

const FUNCTIONS: [(&str, Function); 3] = [
    ("lower", |arguments| Ok(text(&argument(arguments, 0).to_lowercase()))),
    ("upper", |arguments| Ok(text(&argument(arguments, 0).to_uppercase()))),
    ("truncate", |arguments| {
        let length = argument(arguments, 1).parse().unwrap_or(0);
        Ok(text(&argument(arguments, 0).chars().take(length).collect::<String>()))
    }),
];

fn argument(arguments: &[Value], index: usize) -> String {
    arguments.get(index).map(ToString::to_string).unwrap_or_default()
}

fn text(text: &str) -> Value {
    Value::String(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_go_templates() {
        let field = |name: &str| format!("<{name}>");
        let shown = |tag: &str| execute(tag, field).map_err(|error| error.message().to_owned());
        assert_eq!(shown("{{.ImageName}}/{{ .Name }}/{{ .ID }}").unwrap(), "<ImageName>/<Name>/<ID>");
        assert_eq!(shown("{{ upper .Name }}-{{ truncate .FullID 3 }}").unwrap(), "<NAME>-<Fu");
        assert_eq!(shown("{{if .Name}}yes{{end}}").unwrap(), "yes");
        assert_eq!(shown("plain").unwrap(), "plain");
        for wrong in ["{{", "{{.Nothing}}", "{{nosuch .ID}}"] {
            assert!(shown(wrong).unwrap_err().starts_with("template: log-tag: "), "{wrong}");
        }
    }
}
