//! Files that fit a head: at most 500 lines besides tests, functions at most 70, mains 100; and
//! no `mod.rs`, no test modules over 200 lines inside a file.

use super::Violation;
use super::source::{Tree, blank, has_word, is_test_file, production_lines};

const RULE: &str = "sizes";
const FILE_LINES: usize = 500;
const MAIN_LINES: usize = 100;
const FUNCTION_LINES: usize = 70;
const INLINE_TEST_LINES: usize = 200;

pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in tree.rust() {
        let mut add = |line, advice| {
            found.push(Violation { file: path.into(), line, rule: RULE, advice });
        };
        if path.ends_with("/mod.rs") {
            add(1, "name it after its module, beside the module's directory".into());
        }
        let production = production_lines(text);
        let limit = if path.ends_with("src/main.rs") { MAIN_LINES } else { FILE_LINES };
        if production > limit && !is_test_file(path) {
            add(
                limit + 1,
                format!("{production} lines, {limit} allowed: split it by what it knows"),
            );
        }
        let tests = text.lines().count() - production;
        if tests > INLINE_TEST_LINES {
            add(
                production + 1,
                format!("{tests} lines of tests: move them to a tests.rs of the module"),
            );
        }
        // Tests are left to clippy.
        for (line, length) in long_functions(text).into_iter().filter(|_| !is_test_file(path)) {
            add(
                line,
                format!("a function of {length} lines, {FUNCTION_LINES} allowed: name its steps"),
            );
        }
    }
    found
}

/// (line, length) of functions whose body is too long; by indentation, which rustfmt guarantees.
/// Like clippy, comments and blank lines do not count.
fn long_functions(text: &str) -> Vec<(usize, usize)> {
    let code = blank(text);
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if !has_word(line, "fn") || !line.trim_start().starts_with(|c: char| c.is_alphabetic()) {
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let closing = format!("{indent}}}");
        let Some(open) = (at..lines.len()).find(|at| lines[*at].ends_with(['{', ';', '}'])) else {
            continue;
        };
        if !lines[open].ends_with('{') {
            continue;
        }
        let body = lines[open + 1..].iter().take_while(|line| line.trim_end() != closing);
        let length = body.filter(|line| !line.trim().is_empty()).count();
        // Clippy's own exception, which carries its reason, is ours, too.
        let excepted =
            lines[at.saturating_sub(4)..at].iter().any(|line| line.contains("too_many_lines"));
        if length > FUNCTION_LINES && !excepted {
            found.push((at + 1, length));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<(usize, String)> {
        check(&Tree::of(&[(path, text)])).into_iter().map(|v| (v.line, v.advice)).collect()
    }

    #[test]
    fn long_files_are_found_and_tests_do_not_count() {
        let long = "x();\n".repeat(501);
        assert_eq!(found("a/src/b.rs", &long).len(), 1);
        assert_eq!(found("a/src/main.rs", &"x();\n".repeat(101)).len(), 1);
        assert_eq!(found("a/tests/it/b.rs", &long), []);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "x();\n".repeat(150));
        assert_eq!(found("a/src/b.rs", &format!("{}{tests}", "x();\n".repeat(499))), []);
    }

    #[test]
    fn long_functions_are_found_where_they_begin() {
        let body = "        x();\n\n".repeat(71);
        let text =
            format!("impl A {{\n    fn f(\n        a: B,\n    ) -> C {{\n{body}    }}\n}}\n");
        assert_eq!(found("a/src/b.rs", &text)[0].0, 2);
        let fine = format!("fn f() {{\n{}}}\n", "    x(); // y\n    // z\n".repeat(70));
        assert_eq!(found("a/src/b.rs", &fine), []);
    }

    #[test]
    fn mod_rs_is_refused() {
        assert_eq!(found("a/src/b/mod.rs", "").len(), 1);
    }
}
