//! `--format`: Go templates over JSON trees, with the functions that Docker's command line has.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use gotmpl::{MissingKey, Template, TemplateError, Value};

use super::json::Json;

/// A `--format` that cannot be parsed or executed.
#[derive(Debug, thiserror::Error)]
#[error("template parsing error: {0}")]
pub(crate) struct FormatError(#[from] TemplateError);

/// The trees behind the maps and lists of one execution: templates sort maps, `json` must not.
type Originals = Arc<Mutex<HashMap<usize, Json>>>;

/// A parsed template.
pub(crate) struct Formatter {
    template: Template,
    originals: Originals,
}

impl Formatter {
    /// Parses a template; `.Label "key"` works as the method of that name does in Docker's tables.
    pub(crate) fn parse(source: &str) -> Result<Self, FormatError> {
        let originals = Originals::default();
        let mut template = Template::new("").missing_key(MissingKey::Error);
        let trees = Arc::clone(&originals);
        template = template.func("json", move |arguments| json(&trees, arguments));
        for (name, function) in FUNCTIONS {
            template = template.func(name, function);
        }
        let template = template.parse(&source.replace(".Label ", "label . "))?;
        Ok(Self { template, originals })
    }

    /// The text for one tree.
    pub(crate) fn render(&self, tree: &Json) -> Result<String, FormatError> {
        let value = self.value(tree);
        let text = self.template.execute_to_string(&value);
        self.originals.lock().expect("no holder panics").clear();
        Ok(text?)
    }

    /// The template's value of a tree; remembers which tree each map and list came from.
    fn value(&self, tree: &Json) -> Value {
        match tree {
            Json::Null => Value::Nil,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => number_value(number),
            Json::String(text) => Value::String(text.as_str().into()),
            Json::Array(items) => {
                let list: Arc<[Value]> = items.iter().map(|item| self.value(item)).collect();
                self.remember(list.as_ptr() as usize, tree);
                Value::List(list)
            }
            Json::Object(fields) => {
                let entries = fields.iter().map(|(key, value)| (Arc::from(key.as_str()), self.value(value)));
                let map: Arc<BTreeMap<Arc<str>, Value>> = Arc::new(entries.collect());
                self.remember(Arc::as_ptr(&map) as usize, tree);
                Value::Map(map)
            }
        }
    }

    fn remember(&self, address: usize, tree: &Json) {
        self.originals.lock().expect("no holder panics").insert(address, tree.clone());
    }
}

fn number_value(number: &serde_json::Number) -> Value {
    match (number.as_i64(), number.as_u64()) {
        (Some(value), _) => Value::Int(value),
        (None, Some(value)) => Value::Uint(value),
        (None, None) => Value::Float(number.as_f64().unwrap_or_default()),
    }
}

fn json(originals: &Originals, arguments: &[Value]) -> Result<Value, TemplateError> {
    let value = argument(arguments, 0)?;
    Ok(text(to_json(&originals.lock().expect("no holder panics"), value).compact()))
}

fn to_json(originals: &HashMap<usize, Json>, value: &Value) -> Json {
    let address = match value {
        Value::List(list) => Some(list.as_ptr() as usize),
        Value::Map(map) => Some(Arc::as_ptr(map) as usize),
        _ => None,
    };
    // Empty lists share one address: only a tree of the same kind is the value's own.
    let known = address.and_then(|address| originals.get(&address));
    match (value, known) {
        (Value::Map(map), Some(tree @ Json::Object(fields))) if fields.len() == map.len() => tree.clone(),
        (Value::List(list), Some(tree @ Json::Array(items))) if items.len() == list.len() => tree.clone(),
        (Value::Map(map), _) => Json::Object(map.iter().map(|(k, v)| (k.to_string(), to_json(originals, v))).collect()),
        (Value::List(list), _) => Json::Array(list.iter().map(|item| to_json(originals, item)).collect()),
        (Value::Bool(value), _) => Json::Bool(*value),
        (Value::Int(value), _) => Json::Number((*value).into()),
        (Value::Uint(value), _) => Json::Number((*value).into()),
        (Value::Float(value), _) => serde_json::Number::from_f64(*value).map_or(Json::Null, Json::Number),
        (Value::String(value), _) => Json::String(value.to_string()),
        (Value::Nil | Value::Function(_), _) => Json::Null,
    }
}

type Function = fn(&[Value]) -> Result<Value, TemplateError>;

/// The functions that Docker adds to Go's.
const FUNCTIONS: [(&str, Function); 8] = [
    ("split", |a| {
        let parts = string(a, 0)?;
        let separator = string(a, 1)?;
        Ok(Value::List(parts.split(separator.as_str()).map(|part| text(part.to_owned())).collect()))
    }),
    ("join", |a| {
        let Value::List(list) = argument(a, 0)? else {
            return Err(TemplateError::TypeMismatch { expected: "list", got: argument(a, 0)?.type_name() });
        };
        let parts: Vec<String> = list.iter().map(ToString::to_string).collect();
        Ok(text(parts.join(&string(a, 1)?)))
    }),
    ("title", |a| Ok(text(title(&string(a, 0)?)))),
    ("lower", |a| Ok(text(string(a, 0)?.to_lowercase()))),
    ("upper", |a| Ok(text(string(a, 0)?.to_uppercase()))),
    ("pad", |a| {
        let spaces = |count: i64| " ".repeat(count.clamp(0, 1000) as usize);
        Ok(text(format!("{}{}{}", spaces(integer(a, 1)?), string(a, 0)?, spaces(integer(a, 2)?))))
    }),
    ("truncate", |a| Ok(text(string(a, 0)?.chars().take(integer(a, 1)?.max(0) as usize).collect()))),
    ("label", |a| {
        let labels = argument(a, 0)?.field(LABELS).cloned().unwrap_or(Value::Nil);
        Ok(labels.field(&string(a, 1)?).cloned().unwrap_or_else(|| text(String::new())))
    }),
];

/// The hidden field of a table's row that holds its labels one by one, for `.Label`.
pub(crate) const LABELS: &str = "\u{1}labels";

fn title(words: &str) -> String {
    let mut start = true;
    let upper = |c: char, start: &mut bool| {
        let out = if *start { c.to_ascii_uppercase() } else { c };
        *start = c.is_whitespace();
        out
    };
    words.chars().map(|c| upper(c, &mut start)).collect()
}

fn argument(arguments: &[Value], index: usize) -> Result<&Value, TemplateError> {
    arguments.get(index).ok_or(TemplateError::Exec(format!("argument {} is missing", index + 1)))
}

fn string(arguments: &[Value], index: usize) -> Result<String, TemplateError> {
    Ok(argument(arguments, index)?.to_string())
}

fn integer(arguments: &[Value], index: usize) -> Result<i64, TemplateError> {
    let value = argument(arguments, index)?;
    value.as_int().ok_or(TemplateError::TypeMismatch { expected: "int", got: value.type_name() })
}

fn text(value: String) -> Value {
    Value::String(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, json: &str) -> String {
        let tree: Json = serde_json::from_str(json).unwrap();
        Formatter::parse(source).unwrap().render(&tree).unwrap()
    }

    #[test]
    fn fields_and_functions() {
        let json = r#"{"Name":"/web","State":{"Running":true,"Pid":12},"Names":["a","b"]}"#;
        assert_eq!(render("{{.Name}} {{.State.Running}}", json), "/web true");
        assert_eq!(render("{{json .State}}", json), r#"{"Running":true,"Pid":12}"#);
        assert_eq!(render("{{json .}}", json), json);
        assert_eq!(render(r#"{{join .Names ","}} {{upper .Name}}"#, json), "a,b /WEB");
        assert_eq!(render(r#"{{range .Names}}<{{.}}>{{end}}"#, json), "<a><b>");
        assert_eq!(render(r#"{{index (split .Name "/") 1}}"#, json), "web");
    }

    #[test]
    fn a_missing_field_is_an_error() {
        let formatter = Formatter::parse("{{.Nope}}").unwrap();
        let error = formatter.render(&Json::Object(Vec::new())).unwrap_err();
        assert!(error.to_string().starts_with("template parsing error: "), "{error}");
    }

    #[test]
    fn empty_lists_and_maps_stay_apart() {
        assert_eq!(render("{{json .A}}{{json .B}}{{json .C}}", r#"{"A":[],"B":{},"C":null}"#), "[]{}null");
    }
}
