//! "did you mean": the nearest known word.

/// Words that differ in so many letters are not meant.
const DISTANCE_LIMIT: usize = 3;

/// The option nearest to `word`, when one is near and none is `word` itself. Case matters.
pub fn suggest<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut nearest = (DISTANCE_LIMIT, None);
    for option in options {
        if option == word {
            return None;
        }
        let distance = distance(word, option);
        if distance < nearest.0 {
            nearest = (distance, Some(option));
        }
    }
    nearest.1
}

/// The text ` (did you mean X?)`, or nothing.
pub(crate) fn hint<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> String {
    suggest(word, options).map(|near| format!(" (did you mean {near}?)")).unwrap_or_default()
}

/// How many letters must be put in, taken out or replaced.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_meant() {
        let known = ["FROM", "RUN", "COPY", "CMD"];
        assert_eq!(suggest("FROMM", known), Some("FROM"));
        assert_eq!(suggest("COPPY", known), Some("COPY"));
        assert_eq!(suggest("RUN", known), None);
        assert_eq!(suggest("ENTRYPOINT", known), None);
    }
}
