//! `unsafe` and silenced lints: only in the listed places, always with a proof.

use super::Violation;
use super::source::{Tree, blank, has_word, is_word};

const RULE: &str = "unsafe";
/// Where the kernel can only be reached without a safe wrapper.
const ALLOWED: [&str; 2] = ["agent/src/bpf.rs", "collector-api/src/store/nodelay.rs"];

pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in tree.rust() {
        let code = blank(text);
        for (at, line) in code.lines().enumerate() {
            let mut add = |advice: &str| {
                found.push(Violation {
                    file: path.into(),
                    line: at + 1,
                    rule: RULE,
                    advice: advice.into(),
                });
            };
            if has_word(line, "unsafe") && !ALLOWED.contains(&path) {
                add(
                    "use rustix or another safe wrapper; if there is none, list the file in xtask/src/tidy/unsafe_code.rs with the reason",
                );
            }
            if attribute(line, "allow") {
                add(
                    "write #[expect(…, reason = \"…\")] instead: it goes when it is no longer needed",
                );
            }
            if attribute(line, "expect") && !attribute_text(&code, at).contains("reason") {
                add("say why: #[expect(…, reason = \"…\")]");
            }
        }
    }
    found
}

/// `#[name(` or `#![name(`, also within `cfg_attr`.
fn attribute(line: &str, name: &str) -> bool {
    let opening = format!("{name}(");
    let trimmed = line.trim_start();
    trimmed.starts_with('#')
        && trimmed.match_indices(&opening).any(|(at, _)| !trimmed[..at].ends_with(is_word))
}

/// The attribute that begins in this line, to its `]`.
fn attribute_text(code: &str, line: usize) -> String {
    let mut text = String::new();
    for line in code.lines().skip(line) {
        text.push_str(line);
        if line.trim_end().ends_with(']') {
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_allow_and_unexplained_expect_are_found() {
        let text = "\
fn a() { unsafe { b() } }
#[allow(dead_code)]
#[expect(dead_code)]
#[expect(dead_code, reason = \"x\")]
#[expect(
    dead_code,
    reason = \"x\"
)]
let a = b.expect(\"unsafe\"); // unsafe
#![forbid(unsafe_code)]
";
        let tree = Tree::of(&[("a/src/b.rs", text), ("agent/src/bpf.rs", "unsafe {}\n")]);
        let lines: Vec<usize> = check(&tree).iter().map(|found| found.line).collect();
        assert_eq!(lines, [1, 2, 3]);
    }
}
