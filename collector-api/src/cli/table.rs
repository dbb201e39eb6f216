//! What commands print: aligned columns for a terminal, or JSON.
//!
//! Names come from hosts and operators: a control character in one would reach the terminal as a command
//! to it, so none is printed. JSON escapes them by itself.

use std::io::{self, Write as _};

use anyhow::Context as _;
use clap::ValueEnum;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use unicode_width::UnicodeWidthStr as _;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns, for people.
    Table,
    /// What the server said, for programs.
    Json,
}

/// A column: its title, and where its value is in an item (RFC 6901).
pub type Column = (&'static str, &'static str);

/// Prints a list: `items` of `page` by `columns`, or the page.
pub fn print_page(page: &Value, columns: &[Column], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(page);
    }
    let mut lines = vec![columns.iter().map(|(title, _)| (*title).to_owned()).collect()];
    for item in page["items"].as_array().into_iter().flatten() {
        lines.push(columns.iter().map(|(_, pointer)| cell(item.pointer(pointer))).collect());
    }
    print_table(&lines)
}

/// Prints one object: a line per field, in the order of the object, or as it is.
pub fn print_object(object: &Value, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(object);
    }
    let fields = object.as_object().into_iter().flatten();
    let lines: Vec<Vec<String>> =
        fields.map(|(name, value)| vec![name.clone(), cell(Some(value))]).collect();
    print_table(&lines)
}

/// Prints JSON, indented.
pub fn print_json(value: &Value) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("write JSON")?;
    print(&format!("{text}\n"))
}

/// Prints aligned columns.
pub fn print_table(lines: &[Vec<String>]) -> anyhow::Result<()> {
    print(&table(lines))
}

fn table(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.width()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            row.push_str(cell);
            row.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width()) + 2));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// A reader that has seen enough (`| head`) is no error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to stdout"),
    }
}

/// A value in one line; `-`: unknown.
pub fn cell(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => return "-".into(),
        Some(Value::String(text)) => whole_seconds(text),
        Some(Value::Object(fields)) if fields.values().all(Value::is_string) => {
            let pairs = fields
                .iter()
                .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
            pairs.collect::<Vec<_>>().join(",")
        }
        Some(Value::Bool(yes)) => if *yes { "yes" } else { "no" }.into(),
        Some(other) => other.to_string(),
    };
    if text.is_empty() { "-".into() } else { text.replace(char::is_control, "\u{fffd}") }
}

/// Times without their fraction of a second.
fn whole_seconds(text: &str) -> String {
    OffsetDateTime::parse(text, &Rfc3339)
        .ok()
        .and_then(|at| rfc3339(at).ok())
        .unwrap_or_else(|| text.to_owned())
}

/// A time to the second.
pub fn rfc3339(at: OffsetDateTime) -> anyhow::Result<String> {
    let whole = at.replace_nanosecond(0).context("zero is a nanosecond")?;
    whole.format(&Rfc3339).context("cannot write a time")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned_by_what_a_terminal_shows() {
        let lines = [["HOST", "N"], ["数据库", "1"], ["db-01-long", "22"]]
            .map(|line| line.map(str::to_owned).to_vec());
        assert_eq!(table(&lines), "HOST        N\n数据库      1\ndb-01-long  22\n");
    }

    #[test]
    fn cells_are_one_line_without_commands_to_the_terminal() {
        let cell = |value: Value| cell(Some(&value));
        assert_eq!(cell(Value::Null), "-");
        assert_eq!(cell(json!("")), "-");
        assert_eq!(cell(json!("a\u{1b}[2J\nb")), "a\u{fffd}[2J\u{fffd}b");
        assert_eq!(cell(json!("2026-11-22T03:12:00.123456Z")), "2026-11-22T03:12:00Z");
        assert_eq!(cell(json!({ "env": "prod", "role": "db" })), "env=prod,role=db");
        assert_eq!(cell(json!({ "from": 1 })), r#"{"from":1}"#);
        assert_eq!(cell(json!(false)), "no");
        assert_eq!(super::cell(None), "-");
    }
}
