//! Extracts the names that a source file defines, imports and uses.
//!
//! This is a scanner, not a parser: it knows tokens, braces, `mod`, `use` and paths. It does not see trait methods or
//! names built by macros. Items under `#[cfg(test)]` are skipped: tests may use any part of their crate.

use std::collections::BTreeSet;

/// A module in a file: the file's own, or an inline `mod name { … }`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    /// Names of the enclosing inline modules; empty for the file's own module.
    pub(super) inline: Vec<String>,
    pub(super) imports: Vec<Import>,
    /// Paths of two or more segments outside of `use`.
    pub(super) paths: BTreeSet<Vec<String>>,
    /// Single names outside of `use`.
    pub(super) names: BTreeSet<String>,
    /// Names of its items.
    pub(super) items: BTreeSet<String>,
    /// Modules declared with `mod name;`.
    pub(super) modules: Vec<String>,
}

/// One name imported by `use`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) path: Vec<String>,
    /// The bound name; `*` for all names of the module.
    pub(super) name: String,
    /// Whether it has any `pub`.
    pub(super) exported: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Name(String),
    Text(String),
    PathSeparator,
    Sign(char),
}

/// The modules of a file, its own first.
pub(super) fn scopes(text: &str) -> Vec<Scope> {
    let mut reader = Reader { tokens: tokens(text), at: 0, scopes: vec![Scope::default()], open: vec![Some(0)] };
    reader.read();
    reader.scopes
}

/// Keywords before the name of an item.
const ITEMS: &[&str] = &["fn", "struct", "enum", "trait", "type", "const", "static", "union"];

struct Reader {
    tokens: Vec<Token>,
    at: usize,
    scopes: Vec<Scope>,
    /// For each open brace, the module that it opened, if any.
    open: Vec<Option<usize>>,
}

impl Reader {
    fn read(&mut self) {
        let mut exported = false;
        while let Some(token) = self.tokens.get(self.at).cloned() {
            let mut visible = false;
            match token {
                Token::Sign('#') => self.attribute(),
                Token::Sign('{') => self.open(None),
                Token::Sign('}') => {
                    self.open.pop();
                    self.at += 1;
                }
                Token::Name(name) => match name.as_str() {
                    "pub" => {
                        self.at += 1;
                        if self.is_sign(0, '(') {
                            self.skip_group();
                        }
                        visible = true;
                    }
                    "use" => self.import(exported),
                    "mod" => self.module(),
                    "macro_rules" => self.item(2),
                    keyword if ITEMS.contains(&keyword) => self.item(1),
                    _ => self.path(),
                },
                Token::Text(_) | Token::PathSeparator | Token::Sign(_) => self.at += 1,
            }
            // A `pub` applies to the next token.
            exported = visible;
        }
    }

    fn scope(&mut self) -> &mut Scope {
        let index = self.open.iter().rev().find_map(|module| *module).unwrap_or(0);
        &mut self.scopes[index]
    }

    fn name(&self, ahead: usize) -> Option<&str> {
        match self.tokens.get(self.at + ahead) {
            Some(Token::Name(name)) => Some(name),
            _ => None,
        }
    }

    fn is_sign(&self, ahead: usize, sign: char) -> bool {
        self.tokens.get(self.at + ahead) == Some(&Token::Sign(sign))
    }

    fn open(&mut self, module: Option<usize>) {
        self.open.push(module);
        self.at += 1;
    }

    /// Skips a bracketed group, which opens here.
    fn skip_group(&mut self) {
        let mut depth = 0usize;
        while let Some(token) = self.tokens.get(self.at) {
            self.at += 1;
            match token {
                Token::Sign('(' | '[' | '{') => depth += 1,
                Token::Sign(')' | ']' | '}') => {
                    depth -= 1;
                    if depth == 0 {
                        return;
                    }
                }
                _ => {}
            }
        }
    }

    /// Skips the item after a `cfg(test)` attribute; reads serde's strings as paths.
    fn attribute(&mut self) {
        self.at += 1;
        if self.is_sign(0, '!') {
            self.at += 1;
        }
        let start = self.at;
        if !self.is_sign(0, '[') {
            return;
        }
        self.skip_group();
        let inside = &self.tokens[start + 1..self.at - 1];
        let test = [Token::Name("cfg".to_owned()), Token::Sign('('), Token::Name("test".to_owned()), Token::Sign(')')];
        if inside == test {
            self.skip_item();
            return;
        }
        let paths: Vec<Vec<Token>> = inside
            .iter()
            .filter_map(|token| match token {
                Token::Text(text) if inside[0] == Token::Name("serde".to_owned()) => Some(tokens(text)),
                _ => None,
            })
            .chain([inside.to_vec()])
            .collect();
        for tokens in paths {
            let mut part = Self { tokens, at: 0, scopes: vec![Scope::default()], open: vec![Some(0)] };
            part.read();
            let found = part.scopes.remove(0);
            self.scope().paths.extend(found.paths);
        }
    }

    /// Skips an item, a field or a statement.
    fn skip_item(&mut self) {
        while self.is_sign(0, '#') {
            self.at += 1;
            self.skip_group();
        }
        if self.name(0) == Some("pub") {
            self.at += 1;
            if self.is_sign(0, '(') {
                self.skip_group();
            }
        }
        let first = self.name(0).unwrap_or_default().to_owned();
        let to_semicolon = ["use", "const", "static", "type", "let"].contains(&first.as_str());
        let braced = ["fn", "struct", "enum", "impl", "mod", "trait", "async", "unsafe", "macro_rules"];
        let to_comma = !to_semicolon && !braced.contains(&first.as_str());
        while let Some(token) = self.tokens.get(self.at) {
            match token {
                Token::Sign('{') if !to_semicolon => return self.skip_group(),
                Token::Sign('(' | '[' | '{') => self.skip_group(),
                Token::Sign('}') => return,
                Token::Sign(sign) if *sign == ';' || (*sign == ',' && to_comma) => {
                    self.at += 1;
                    return;
                }
                _ => self.at += 1,
            }
        }
    }

    fn module(&mut self) {
        let Some(name) = self.name(1).map(str::to_owned) else {
            self.at += 1;
            return;
        };
        self.at += 2;
        if self.is_sign(0, '{') {
            let mut inline = self.scope().inline.clone();
            inline.push(name);
            self.scopes.push(Scope { inline, ..Scope::default() });
            self.open(Some(self.scopes.len() - 1));
        } else {
            self.scope().modules.push(name);
        }
    }

    fn item(&mut self, ahead: usize) {
        match self.name(ahead).map(str::to_owned) {
            Some(name) => {
                self.at += ahead + 1;
                self.scope().items.insert(name);
            }
            // As in `fn(u8) -> u8` and `*const u8`.
            None => self.at += 1,
        }
    }

    fn path(&mut self) {
        let continues = self.at > 0 && matches!(self.tokens[self.at - 1], Token::PathSeparator);
        let mut path = Vec::new();
        while let Some(name) = self.name(0).map(str::to_owned) {
            path.push(name);
            self.at += 1;
            if self.tokens.get(self.at) != Some(&Token::PathSeparator) || self.name(1).is_none() {
                break;
            }
            self.at += 1;
        }
        if continues {
            return;
        }
        let scope = self.scope();
        match path.len() {
            1 => scope.names.extend(path),
            _ => _ = scope.paths.insert(path),
        }
    }

    fn import(&mut self, exported: bool) {
        self.at += 1;
        let mut found = Vec::new();
        self.import_tree(&[], &mut found);
        let imports = found.into_iter().map(|(path, name)| Import { path, name, exported });
        self.scope().imports.extend(imports);
    }

    fn import_tree(&mut self, before: &[String], found: &mut Vec<(Vec<String>, String)>) {
        let mut path = before.to_vec();
        while let Some(token) = self.tokens.get(self.at).cloned() {
            self.at += 1;
            match token {
                Token::PathSeparator => {}
                Token::Name(name) if name == "as" => {
                    let alias = self.name(0).unwrap_or("_").to_owned();
                    self.at += 1;
                    found.push((std::mem::take(&mut path), alias));
                }
                // `{self}` names the module before it.
                Token::Name(name) if name == "self" && !path.is_empty() => {}
                Token::Name(name) => path.push(name),
                Token::Sign('*') => found.push((std::mem::take(&mut path), "*".to_owned())),
                Token::Sign('{') => {
                    while !self.is_sign(0, '}') && self.at < self.tokens.len() {
                        self.import_tree(&path, found);
                        if self.is_sign(0, ',') {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    path.clear();
                }
                _ => {
                    self.at -= 1;
                    break;
                }
            }
        }
        if let Some(last) = path.last().cloned() {
            found.push((path, last));
        }
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '/' if rest.starts_with("//") => (None, rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => (None, block_comment(rest)),
            '"' => text_literal(rest),
            '\'' => (None, quote(rest)),
            ':' if rest.starts_with("::") => (Some(Token::PathSeparator), 2),
            '0'..='9' => (None, word(rest)),
            _ if first == '_' || first.is_alphabetic() => name_or_literal(rest),
            _ if first.is_whitespace() => (None, first.len_utf8()),
            _ => (Some(Token::Sign(first)), first.len_utf8()),
        };
        tokens.extend(token);
        rest = &rest[length..];
    }
    tokens
}

fn word(text: &str) -> usize {
    text.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(text.len())
}

/// A name, or a literal with a prefix: `b""`, `r#""#`, `b'x'`; `r#name` is the name.
fn name_or_literal(text: &str) -> (Option<Token>, usize) {
    let length = word(text);
    let (name, rest) = text.split_at(length);
    if let "r" | "br" | "cr" = name {
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        if rest[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = length + hashes + 1;
            let inside = text[start..].find(&end).unwrap_or(text.len() - start);
            return (None, (start + inside + end.len()).min(text.len()));
        }
        if hashes == 1 && name == "r" {
            let raw = word(&rest[1..]);
            return (Some(Token::Name(rest[1..=raw].to_owned())), length + 1 + raw);
        }
    }
    if let "b" | "c" = name {
        if rest.starts_with('"') {
            let (_, text) = text_literal(rest);
            return (None, length + text);
        }
        if rest.starts_with('\'') {
            return (None, length + quote(rest));
        }
    }
    (Some(Token::Name(name.to_owned())), length)
}

fn text_literal(text: &str) -> (Option<Token>, usize) {
    let mut escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return (Some(Token::Text(text[1..index].to_owned())), index + 1),
            _ => {}
        }
    }
    (None, text.len())
}

/// Length of a character literal, or of the quote of a lifetime.
fn quote(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            chars.next();
            chars.find(|(_, c)| *c == '\'').map_or(text.len(), |(index, _)| index + 1)
        }
        Some(_) => match chars.next() {
            Some((index, '\'')) => index + 1,
            _ => 1 + word(&text[1..]),
        },
        None => text.len(),
    }
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import(path: &str, name: &str, exported: bool) -> Import {
        Import { path: path.split("::").map(str::to_owned).collect(), name: name.to_owned(), exported }
    }

    fn path(text: &str) -> Vec<String> {
        text.split("::").map(str::to_owned).collect()
    }

    #[test]
    fn use_trees_are_read_with_aliases_globs_and_visibility() {
        let scopes = scopes("use a::{b, c as d, e::*, f::{self, g}}; pub(crate) use h::i; fn x() { use j::k; }");
        assert_eq!(
            scopes[0].imports,
            [
                import("a::b", "b", false),
                import("a::c", "d", false),
                import("a::e", "*", false),
                import("a::f", "f", false),
                import("a::f::g", "g", false),
                import("h::i", "i", true),
                import("j::k", "k", false),
            ]
        );
    }

    #[test]
    fn paths_in_comments_and_literals_are_no_paths() {
        let text = r##"
            // a::b
            /* c::d /* e::f */ g::h */
            const TEXT: &str = "i::j \" k::l"; const RAW: &str = r#"m::n " "#; const QUOTE: char = '"';
            fn f<'a>(x: &'a str, y: char) -> o::P { let _ = (b'"', '\'', b"q::r"); s::t() }
        "##;
        let scopes = scopes(text);
        assert_eq!(scopes[0].paths, BTreeSet::from([path("o::P"), path("s::t")]));
        assert!(scopes[0].items.contains("TEXT") && scopes[0].items.contains("f"));
    }

    #[test]
    fn what_stands_under_cfg_test_is_left_out() {
        let text = "#[cfg(test)] mod tests { use super::a; } #[cfg(test)] use b::{c, d}; #[cfg(test)] mod e;
            #[cfg(test)] #[derive(Debug)] pub(crate) fn f<A, B>(g: h::I) -> J { k::l() } mod m; fn n() { o::p() }";
        let scopes = scopes(text);
        assert_eq!(scopes.len(), 1);
        assert_eq!(scopes[0].imports, []);
        assert_eq!(scopes[0].modules, ["m"]);
        assert_eq!(scopes[0].paths, BTreeSet::from([path("o::p")]));
    }

    #[test]
    fn inline_modules_have_a_scope_of_their_own() {
        let scopes = scopes("mod a { use super::b; mod c { fn d() { super::e(); } } } fn f() { g::<u8>::h(); }");
        let names: Vec<_> = scopes.iter().map(|scope| scope.inline.join("::")).collect();
        assert_eq!(names, ["", "a", "a::c"]);
        assert_eq!(scopes[1].imports, [import("super::b", "b", false)]);
        assert_eq!(scopes[2].paths, BTreeSet::from([path("super::e")]));
        assert_eq!(scopes[0].paths, BTreeSet::new());
        assert!(scopes[0].names.contains("g"));
    }

    #[test]
    fn functions_that_serde_is_told_of_are_used() {
        let scopes = scopes(r#"struct A { #[serde(default, with = "super::exposed")] b: u8, #[doc = "c::d"] e: u8 }"#);
        assert_eq!(scopes[0].paths, BTreeSet::from([path("super::exposed")]));
    }
}
