//! Titles: the part of a command line that stays the same while a process tells what it does.
//!
//! `PostgreSQL`, nginx and sshd write what they do just now, and for whom, over their arguments. As it
//! is, every client's port and every statement would make another process. So titles are shortened to
//! what is worth a row of its own before they are hashed: [`BUILTIN`] for those three, `[titles] rules`
//! of the configuration for others. The first rule that matches is used, once; no rule ever makes a
//! line longer than [`shared_model::limits::MAX_COMMAND_LINE_BYTES`], because the cut comes after it.

use std::sync::LazyLock;

use regex_lite::Regex;
use serde::{Deserialize, Serialize};

use crate::profile::Pattern;

/// Most rules of the configuration.
pub const MAX_RULES: usize = 64;

/// What every rule of [`BUILTIN`] begins with, so that other lines cost one comparison each.
const BEGINNINGS: [&str; 3] = ["postgres: ", "nginx: ", "sshd"];

/// (pattern, replacement) of the programs everybody has.
static BUILTIN: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        // `postgres: [cluster: ]user database host(port) state`, and WAL senders.
        (r"^(postgres: .*?)\([0-9]+\)( .*)?$", "$1"),
        (r"^(postgres: (?:\S+: )?\S+ \S+ \[local\]) .*$", "$1"),
        // Those that say where in the log they are.
        (r"^(postgres: (?:\S+: )?(?:startup|archiver|wal ?receiver)(?: process)?)\s.*$", "$1"),
        (r"^(postgres: (?:\S+: )?parallel worker) for PID [0-9]+.*$", "$1"),
        (r"^(nginx: worker process) is shutting down$", "$1"),
        // `sshd: user@pts/3`, of newer versions `sshd-session: …`.
        (r"^(sshd(?:-session)?: [^@\s]+)@.*$", "$1"),
    ]
    .into_iter()
    .map(|(pattern, replacement)| {
        #[expect(clippy::expect_used, reason = "constant patterns, compiled by every test run")]
        let pattern = Regex::new(pattern).expect("a constant pattern");
        (pattern, replacement)
    })
    .collect()
});

/// `[titles]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Shorten the titles of `PostgreSQL`, nginx and sshd.
    pub builtin: bool,
    /// Tried first, in this order.
    pub rules: Vec<Rule>,
}

impl Default for Options {
    fn default() -> Self {
        Self { builtin: true, rules: Vec::new() }
    }
}

/// One rule.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Matched against the redacted command line.
    pub pattern: Pattern,
    /// What stands for the match; `$1` is its first group.
    pub replacement: String,
}

impl Options {
    /// `line` without what changes; `None`: no rule is for it.
    pub fn shorten(&self, line: &str) -> Option<String> {
        let configured = self.rules.iter().map(|rule| (&rule.pattern.0, rule.replacement.as_str()));
        let is_builtin = self.builtin && BEGINNINGS.iter().any(|start| line.starts_with(start));
        let builtin: &[_] = if is_builtin { &BUILTIN } else { &[] };
        let builtin = builtin.iter().map(|(pattern, replacement)| (pattern, *replacement));
        let (pattern, replacement) =
            configured.chain(builtin).find(|(pattern, _)| pattern.is_match(line))?;
        Some(pattern.replace(line, replacement).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(options: &Options, lines: &[(&str, &str)]) {
        for (line, expected) in lines {
            assert_eq!(options.shorten(line).as_deref().unwrap_or(line), *expected);
        }
    }

    #[test]
    fn titles_of_the_programs_everybody_has() {
        check(
            &Options::default(),
            &[
                (
                    "postgres: app shop 10.0.0.7(54321) SELECT waiting",
                    "postgres: app shop 10.0.0.7",
                ),
                ("postgres: app shop 10.0.0.7(54322) idle", "postgres: app shop 10.0.0.7"),
                ("postgres: 15/main: app shop ::1(5432) idle", "postgres: 15/main: app shop ::1"),
                ("postgres: app shop [local] idle in transaction", "postgres: app shop [local]"),
                (
                    "postgres: 15/main: app shop [local] INSERT",
                    "postgres: 15/main: app shop [local]",
                ),
                (
                    "postgres: walsender repl 10.0.0.8(41000) streaming 0/3000148",
                    "postgres: walsender repl 10.0.0.8",
                ),
                ("postgres: walreceiver   streaming 0/3000148", "postgres: walreceiver"),
                (
                    "postgres: startup process   recovering 000000010000000000000003",
                    "postgres: startup process",
                ),
                ("postgres: archiver   last was 000000010000000000000002", "postgres: archiver"),
                ("postgres: parallel worker for PID 4711 ", "postgres: parallel worker"),
                ("postgres: checkpointer", "postgres: checkpointer"),
                ("postgres: autovacuum worker shop", "postgres: autovacuum worker shop"),
                ("nginx: worker process is shutting down", "nginx: worker process"),
                ("nginx: master process nginx -g x", "nginx: master process nginx -g x"),
                ("sshd: alice@pts/3", "sshd: alice"),
                ("sshd-session: alice@notty", "sshd-session: alice"),
                ("sshd: /usr/sbin/sshd -D [listener]", "sshd: /usr/sbin/sshd -D [listener]"),
                ("/usr/bin/app a(1) b", "/usr/bin/app a(1) b"),
            ],
        );
    }

    #[test]
    fn configured_rules_come_first_and_the_others_can_be_switched_off() {
        let rule = |pattern: &str, replacement: &str| Rule {
            pattern: Pattern::try_from(pattern.to_owned()).unwrap(),
            replacement: replacement.to_owned(),
        };
        let rules = vec![rule("^(worker: \\S+) job \\d+", "$1 job"), rule("^postgres: .*", "pg")];
        check(
            &Options { builtin: false, rules: rules.clone() },
            &[
                ("worker: mail job 4711 of 9", "worker: mail job of 9"),
                ("postgres: a b [local] idle", "pg"),
                ("sshd: alice@pts/3", "sshd: alice@pts/3"),
            ],
        );
        check(
            &Options { builtin: true, rules },
            &[("postgres: a b [local] idle", "pg"), ("sshd: alice@pts/3", "sshd: alice")],
        );
    }

    #[test]
    fn ten_thousand_clients_of_a_database_are_one_process() {
        let options = Options::default();
        let mut lines: Vec<_> = (0..10_000)
            .map(|port| {
                let state = ["idle", "SELECT", "COMMIT"][port % 3];
                let line = format!("postgres: app shop 10.0.0.7({}) {state}", 20_000 + port);
                options.shorten(&line).unwrap()
            })
            .collect();
        lines.dedup();
        assert_eq!(lines, ["postgres: app shop 10.0.0.7"]);
    }
}
