//! Open ends have an owner, in parentheses after the mark, and say what is left.

use super::Violation;
use super::source::{Tree, has_word};

const RULE: &str = "comments";
/// Split, so that this file passes.
const MARKS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    let ours = |file: &str| {
        [".rs", ".sql", ".toml", ".md", ".c", ".h", ".yml", ".yaml"]
            .iter()
            .any(|end| file.ends_with(end))
            && !file.contains("/fixtures/")
    };
    for (file, text) in tree.files.iter().filter(|(file, _)| ours(file)) {
        for (at, line) in text.lines().enumerate() {
            for mark in MARKS {
                if has_word(line, mark) && !line.contains(&format!("{mark}(")) {
                    let advice = format!("do it, or write {mark}(owner): what is left and why");
                    found.push(Violation { file: file.clone(), line: at + 1, rule: RULE, advice });
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_ends_need_an_owner() {
        let mark = MARKS[0];
        let text = format!("// {mark}: later\n// {mark}(ann): later\nlet a = \"{mark}S\";\n");
        let found = check(&Tree::of(&[("a.rs", &text), ("a.bin", &text)]));
        assert_eq!(found.iter().map(|found| found.line).collect::<Vec<_>>(), [1]);
    }
}
