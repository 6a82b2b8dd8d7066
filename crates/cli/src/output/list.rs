//! Lists in all the forms that `--format` and `--quiet` give them.

use super::json::Json;
use super::table;
use super::template::{FormatError, Formatter, LABELS};

/// How a kind of object is listed.
#[derive(Debug)]
pub(crate) struct Listing {
    /// The columns when nothing else is said, tab-separated fields.
    pub(crate) table: &'static str,
    /// The field that `--quiet` shows.
    pub(crate) quiet: &'static str,
    /// Every field and its heading.
    pub(crate) headings: &'static [(&'static str, &'static str)],
}

/// One object: its fields by name.
#[derive(Debug, Default)]
pub(crate) struct Row(Vec<(&'static str, Json)>);

impl Row {
    /// Adds a text field.
    pub(crate) fn with(mut self, name: &'static str, text: impl Into<String>) -> Self {
        self.0.push((name, Json::String(text.into())));
        self
    }

    /// Adds `Labels`, as one text and, for `.Label`, one by one.
    pub(crate) fn with_labels<'a>(mut self, labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let labels: Vec<(String, Json)> =
            labels.into_iter().map(|(key, value)| (key.clone(), Json::String(value.clone()))).collect();
        let text: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={}", plain(value))).collect();
        self.0.push(("Labels", Json::String(text.join(","))));
        self.0.push((LABELS, Json::Object(labels)));
        self
    }

    fn field(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| plain(value))
    }

    /// All fields in the order of their names, as Docker writes a row as JSON.
    fn json(&self) -> Json {
        let mut fields: Vec<_> = self.0.iter().filter(|(key, _)| *key != LABELS).cloned().collect();
        fields.sort_by(|a, b| a.0.cmp(b.0));
        Json::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// All fields, for a template.
    fn fields(&self) -> Json {
        Json::Object(self.0.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
    }
}

fn plain(value: &Json) -> &str {
    match value {
        Json::String(text) => text,
        _ => "",
    }
}

/// What the user asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Style<'a> {
    /// The usual table.
    Table,
    /// Identifiers only.
    Quiet,
    /// `--format`.
    Format(&'a str),
}

impl Listing {
    /// The text of a list.
    pub(crate) fn render(&self, style: Style<'_>, rows: &[Row]) -> Result<String, FormatError> {
        match style {
            Style::Quiet => Ok(rows.iter().map(|row| format!("{}\n", row.field(self.quiet))).collect()),
            Style::Table | Style::Format("table" | "") => Ok(self.usual_table(rows)),
            Style::Format("json") => Ok(rows.iter().map(|row| format!("{}\n", row.json().compact())).collect()),
            Style::Format(format) => match format.strip_prefix("table") {
                Some(fields) if fields.starts_with([' ', '\t', '{']) => self.table(fields.trim_start(), rows),
                _ => lines(&Formatter::parse(&unescape(format))?, rows),
            },
        }
    }

    /// The table that nobody described, without a template: it is what a list of a thousand would mostly wait for.
    fn usual_table(&self, rows: &[Row]) -> String {
        let columns: Vec<&str> = self.table.split(' ').collect();
        let heading =
            |column: &&str| self.headings.iter().find(|(name, _)| name == column).map_or("", |(_, text)| *text);
        let mut text = columns.iter().map(heading).collect::<Vec<_>>().join("\t");
        for row in rows {
            for (index, column) in columns.iter().enumerate() {
                text.push(if index == 0 { '\n' } else { '\t' });
                text.push_str(row.field(column));
            }
        }
        text.push('\n');
        table::align(&text)
    }

    fn table(&self, format: &str, rows: &[Row]) -> Result<String, FormatError> {
        let formatter = Formatter::parse(&unescape(format))?;
        let heading = |(name, text): &(&str, &str)| ((*name).to_owned(), Json::String((*text).to_owned()));
        let headings = Json::Object(self.headings.iter().map(heading).collect());
        let head = formatter.render(&headings)?;
        Ok(table::align(&format!("{head}\n{}", lines(&formatter, rows)?)))
    }
}

fn lines(formatter: &Formatter, rows: &[Row]) -> Result<String, FormatError> {
    rows.iter().map(|row| Ok(formatter.render(&row.fields())? + "\n")).collect()
}

/// `\t` and `\n` as they are written on a command line.
fn unescape(format: &str) -> String {
    format.replace("\\t", "\t").replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: Listing = Listing {
        table: "ID Name",
        quiet: "ID",
        headings: &[("ID", "VOLUME ID"), ("Name", "NAME"), ("Labels", "LABELS")],
    };

    fn rows() -> Vec<Row> {
        let labels = [("a".to_owned(), "b".to_owned())];
        vec![Row::default().with("Name", "one").with("ID", "1").with_labels(labels.iter().map(|(k, v)| (k, v)))]
    }

    #[test]
    fn every_style() {
        let render = |style| LISTING.render(style, &rows()).unwrap();
        assert_eq!(render(Style::Table), "VOLUME ID   NAME\n1           one\n");
        assert_eq!(render(Style::Quiet), "1\n");
        assert_eq!(render(Style::Format("{{.Name}}\\t{{.ID}}")), "one\t1\n");
        assert_eq!(render(Style::Format("table {{.Name}}\\t{{.Labels}}")), "NAME      LABELS\none       a=b\n");
        assert_eq!(render(Style::Format("json")), "{\"ID\":\"1\",\"Labels\":\"a=b\",\"Name\":\"one\"}\n");
        assert_eq!(render(Style::Format("{{.Label \"a\"}}")), "b\n");
    }
}
