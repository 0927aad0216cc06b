//! The check that every path in a document exists. A path is a word in backticks that is relative and has a folder, or
//! ends like a document or a source file. Build results are excluded.

/// Folders that exist only after a build.
const MADE: &[&str] = &["_out", "target"];

/// Endings of files named without their folder.
const ENDINGS: &[&str] = &[".md", ".rs", ".toml"];

/// The paths in `text`.
fn paths(text: &str) -> Vec<&str> {
    let quoted = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    quoted.filter(|word| is_path(word)).collect()
}

fn is_path(word: &str) -> bool {
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    let first = word.split('/').next().unwrap_or_default();
    let relative = !first.is_empty() && !MADE.contains(&first);
    plain && relative && (word.contains('/') || ENDINGS.iter().any(|ending| word.ends_with(ending)))
}

mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn documents(root: &Path) -> Vec<PathBuf> {
        let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
        let docs = docs.filter(|path| path.extension().is_some_and(|ending| ending == "md"));
        let named = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
        named.into_iter().map(|name| root.join(name)).chain(docs).collect()
    }

    #[test]
    fn every_path_named_in_a_document_exists() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let (mut seen, mut missing) = (0, Vec::new());
        for document in documents(root) {
            let text = std::fs::read_to_string(&document).unwrap();
            for path in paths(&text) {
                seen += 1;
                if !root.join(path).exists() {
                    missing.push(format!("{}: {path}", document.display()));
                }
            }
        }
        assert!(seen > 10, "only {seen} paths were found in the documents");
        assert_eq!(missing, Vec::<String>::new());
    }

    #[test]
    fn paths_are_told_from_other_words() {
        let text =
            "`crates/base`, `README.md` and `cargo xtask up`; `/etc/hosts`, `_out/logs`, `a::b/c`, `talosctl`\nlone `x";
        assert_eq!(paths(text), ["crates/base", "README.md"]);
    }
}
