//! The web page's sources: files that fit a head, no `any`, no text ever parsed as HTML, and a lock
//! file that names no registry.

use std::path::Path;

use super::Violation;
use super::source::Tree;

const RULE: &str = "scripts";
const FILE_LINES: usize = 500;
/// (words, what to do instead)
const REFUSED: [(&str, &str); 6] = [
    (": any", "say what it is, or `unknown`"),
    ("as any", "say what it is, or `unknown`"),
    ("<any>", "say what it is, or `unknown`"),
    ("@ts-ignore", "say what it is"),
    ("dangerouslySetInnerHTML", "texts of hosts are text nodes, see web/src/inert.tsx"),
    ("innerHTML", "texts of hosts are text nodes, see web/src/inert.tsx"),
];

pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut add = |file: &str, line, advice: String| {
        found.push(Violation { file: file.into(), line, rule: RULE, advice });
    };
    for (file, text) in tree.files.iter().filter(|(file, _)| file.starts_with("web/")) {
        if file == "web/package-lock.json" {
            for (at, _) in
                text.lines().enumerate().filter(|(_, line)| line.contains("\"resolved\":"))
            {
                add(
                    file,
                    at + 1,
                    "names a registry: install with web/.npmrc, which leaves it out".into(),
                );
            }
        }
        if ![".ts", ".tsx", ".mjs", ".css"].iter().any(|end| file.ends_with(end))
            || file.ends_with(".d.ts")
        {
            continue;
        }
        let lines = text.lines().count();
        if lines > FILE_LINES {
            add(file, FILE_LINES + 1, format!("{lines} lines, {FILE_LINES} allowed: split it"));
        }
        // Style sheets know `anywhere`, and no types.
        if Path::new(file).extension().is_some_and(|end| end == "css") {
            continue;
        }
        for (at, line) in text.lines().enumerate() {
            for (words, advice) in REFUSED.iter().filter(|(words, _)| line.contains(words)) {
                add(file, at + 1, format!("`{words}`: {advice}"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_page_must_not_hold_is_found() {
        let tree = Tree::of(&[
            ("web/src/a.ts", "let x: any = 1;\n"),
            ("web/src/b.tsx", "e.innerHTML = text;\n"),
            ("web/src/c.ts", &"x();\n".repeat(501)),
            ("web/package-lock.json", "\"resolved\": \"x\",\n"),
            ("agent/src/d.rs", ": any"),
        ]);
        let files: Vec<String> = check(&tree).into_iter().map(|found| found.file).collect();
        assert_eq!(
            files,
            ["web/package-lock.json", "web/src/a.ts", "web/src/b.tsx", "web/src/c.ts"]
        );
    }
}
