//! The texts of the documents of a stream: their comments and their layout stay.

/// The text of each document of a stream, in order, without the markers between them; each ends with a line end.
/// Documents of nothing but comments, directives and blank lines are left out.
///
/// A line that begins with `---` or `...` and ends there or goes on with white space is a marker wherever it stands, even
/// within a block of text, so that no parser is needed.
#[must_use]
pub fn split(stream: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in stream.lines() {
        match marker(line) {
            Some(rest) => documents.push(if rest.is_empty() { String::new() } else { format!("{rest}\n") }),
            None => {
                if let Some(document) = documents.last_mut() {
                    document.push_str(line);
                    document.push('\n');
                }
            }
        }
    }
    documents.retain(|document| document.lines().any(is_content));
    documents.iter().map(|document| trimmed(document)).collect()
}

/// What follows the marker on its line, if it is one.
fn marker(line: &str) -> Option<&str> {
    let line = line.trim_start_matches('\u{feff}');
    let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."))?;
    (rest.is_empty() || rest.starts_with([' ', '\t'])).then(|| rest.trim())
}

fn is_content(line: &str) -> bool {
    let text = line.trim_start();
    !text.is_empty() && !text.starts_with('#') && !line.starts_with('%')
}

/// Without directives and without blank lines at both ends.
fn trimmed(document: &str) -> String {
    let lines: Vec<&str> = document.lines().filter(|line| !line.starts_with('%')).collect();
    let first = lines.iter().position(|line| !line.trim().is_empty()).unwrap_or_default();
    let last = lines.iter().rposition(|line| !line.trim().is_empty()).map_or(0, |last| last + 1);
    lines[first..last].iter().flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_their_comments_and_lose_the_markers() {
        let stream =
            "# first\na: 1 # one\n\n---\n# only a comment\n--- # second\nb: |\n    text\n    --- not a marker\n...\n";
        assert_eq!(split(stream), ["# first\na: 1 # one\n", "# second\nb: |\n    text\n    --- not a marker\n"]);
    }

    #[test]
    fn directives_and_documents_without_content_are_left_out() {
        assert_eq!(split("%YAML 1.2\n---\na: 1\n"), ["a: 1\n"]);
        assert_eq!(split("--- {a: 1}\n---\n\n---\n"), ["{a: 1}\n"]);
        assert_eq!(split("---word: 1"), ["---word: 1\n"]);
        assert_eq!(split("\n# nothing\n---\n"), Vec::<String>::new());
    }
}
