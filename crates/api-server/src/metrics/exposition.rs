//! Prometheus' text format 0.0.4: families of samples with labels.

use std::fmt::Write as _;

/// What kind of numbers a family has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// They only grow, until what they count begins anew.
    Counter,
    /// They come and go.
    Gauge,
}

/// A text in the making. A family without a sample does not appear in it.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
    name: String,
    /// The family's head, until its first sample is written.
    head: String,
}

impl Exposition {
    /// Begins a family: what samples that follow are of.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        name.clone_into(&mut self.name);
        self.head = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// Adds a sample of the family that was begun last.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(&std::mem::take(&mut self.head));
        self.text.push_str(&self.name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.text.push_str(if index == 0 { "{" } else { "," });
            self.text.push_str(label);
            self.text.push_str("=\"");
            escape(text, &mut self.text);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        // Writing to a string does not fail. Rust writes numbers as Go reads them.
        let _ = writeln!(self.text, " {value}");
    }

    /// All that was written.
    pub(super) fn into_text(self) -> String {
        self.text
    }
}

fn escape(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_one_head_and_labels_are_escaped() {
        let mut out = Exposition::default();
        out.family("empty", Kind::Gauge, "never seen");
        out.family("a_total", Kind::Counter, "one\\two\nthree");
        out.sample(&[("x", "a\"b\\c\nd"), ("y", "")], 1.5);
        out.sample(&[], 3_000_000_000.0);
        let expected = "# HELP a_total one\\\\two\\nthree\n# TYPE a_total counter\n\
                        a_total{x=\"a\\\"b\\\\c\\nd\",y=\"\"} 1.5\na_total 3000000000\n";
        assert_eq!(out.into_text(), expected);
    }
}
