//! The files that rules look at, and reading Rust well enough for them: line by line, with
//! strings and comments blanked and test code told apart.

use std::collections::BTreeMap;
use std::path::Path;

/// Path from the root → content.
pub(super) struct Tree {
    pub(super) files: BTreeMap<String, String>,
}

impl Tree {
    /// The Rust files.
    pub(super) fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .filter(|(path, _)| Path::new(path).extension().is_some_and(|end| end == "rs"))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// For tests: a small made-up tree.
    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let own = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
        Self { files: files.iter().map(own).collect() }
    }
}

/// Code of tests by its place.
pub(super) fn is_test_file(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs")
}

/// How many lines come before the tests at the end of a file.
pub(super) fn production_lines(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests = (0..lines.len()).find(|&at| {
        lines[at] == "#[cfg(test)]"
            && lines[at + 1..]
                .iter()
                .find(|line| !line.starts_with("#["))
                .is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
    });
    tests.unwrap_or(lines.len())
}

/// The text with the insides of comments, strings and character literals replaced by spaces;
/// lines stay where they are.
pub(super) fn blank(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < characters.len() {
        let end = skipped(&characters, at);
        if end == at {
            out.push(characters[at]);
            at += 1;
        } else {
            let blanked = |c: &char| if *c == '\n' { '\n' } else { ' ' };
            out.extend(characters[at..end.min(characters.len())].iter().map(blanked));
            at = end;
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none does.
fn skipped(text: &[char], at: usize) -> usize {
    let ahead = |offset: usize| text.get(at + offset).copied();
    match (text[at], ahead(1)) {
        ('/', Some('/')) => find(text, at, |rest| rest[0] == '\n'),
        ('/', Some('*')) => find(text, at + 2, |rest| rest.starts_with(&['*', '/'])) + 2,
        ('"', _) => string_end(text, at + 1),
        ('r', Some('"' | '#')) if at == 0 || !is_word(text[at - 1]) || text[at - 1] == 'b' => {
            let hashes = text[at + 1..].iter().take_while(|c| **c == '#').count();
            if ahead(1 + hashes) != Some('"') {
                return at;
            }
            let close: Vec<char> = std::iter::once('"').chain(vec!['#'; hashes]).collect();
            find(text, at + 2 + hashes, |rest| rest.starts_with(&close)) + 1 + hashes
        }
        ('\'', Some('\\')) => find(text, at + 3, |rest| rest[0] == '\'') + 1,
        ('\'', _) if ahead(2) == Some('\'') => at + 3,
        _ => at,
    }
}

fn string_end(text: &[char], mut at: usize) -> usize {
    while at < text.len() && text[at] != '"' {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn find(text: &[char], from: usize, found: impl Fn(&[char]) -> bool) -> usize {
    (from..text.len()).find(|at| found(&text[*at..])).unwrap_or(text.len())
}

/// Part of an identifier.
pub(super) fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Whether `word` stands alone somewhere in `line`.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_word) && !line[at + word.len()..].starts_with(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked() {
        for (text, expected) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b\nb */ c", "a     \n     c"),
            (r#"f("x \" y") z"#, "f(        ) z"),
            ("r#\"a \"b\"# c", "          c"),
            ("'\\'' 'a' &'a str", "         &'a str"),
            ("for r in x {}", "for r in x {}"),
        ] {
            let blanked = blank(text);
            assert_eq!(blanked.trim_end(), expected.trim_end(), "{text}");
            assert_eq!(blanked.chars().count(), text.chars().count(), "{text}");
        }
    }

    #[test]
    fn tests_at_the_end_do_not_count() {
        assert_eq!(production_lines("a\nb\n#[cfg(test)]\nmod tests {\n}\n"), 2);
        assert_eq!(production_lines("a\n#[cfg(test)]\nmod tests;\n"), 3);
    }

    #[test]
    fn words_stand_alone() {
        assert!(has_word("x unsafe {", "unsafe"));
        assert!(!has_word("unsafe_code", "unsafe"));
    }
}
