//! Hides secrets in command lines, on the host, before anything is hashed or sent.
//!
//! A command line is read as words: its arguments, and the words inside an argument that itself holds
//! white space (`sh -c "…"`, a header, a process title). What is recognised:
//!
//! - options, variables and pairs whose *name* is that of a secret (`--password=x`, `--password x`,
//!   `PGPASSWORD=x`, `-Ddb.password=x`, `"apiKey": "x"`, `;Pwd=x;`), see [`keys`]. Names that go on after the
//!   secret's (`--password-file`, `--token-ttl`) are not;
//! - short options that carry a secret in *known clients only* ([`CLIENTS`]): `-psecret` of the mysql
//!   family, but not `-p 3306` of anything else;
//! - the password of a URL (`scheme://user:password@host`), or its user where that is the token;
//! - values of `Authorization:`, and tokens with a known shape, our own `pfj1_…` and `pfk1_…` first;
//! - what `[redaction] patterns` of the configuration match: group 1 if the pattern has one, else all.
//!
//! The secret becomes [`MASK`], whatever its length. When in doubt more is hidden. What no rule can see
//! (a bare secret as an argument of an unknown program) stays: hence the configurable patterns.

mod inline;
mod keys;

use crate::profile::Pattern;

/// What stands for a secret.
pub(super) const MASK: &str = "***";

/// A short option that carries a secret in some programs.
struct Client {
    /// Base names of the programs begin with one of these …
    prefixes: &'static [&'static str],
    /// … and not with this (`mysqld` is no client).
    except: &'static str,
    /// The option; a value attached to it is always hidden.
    option: &'static str,
    /// Whether the next word is its value if none is attached.
    separate: bool,
    /// Whether only what follows the value's first colon is secret (`user:password`).
    after_colon: bool,
}

const CLIENTS: &[Client] = &[
    Client {
        prefixes: &[
            "mysql",
            "mariadb",
            "mydumper",
            "myloader",
            "mycli",
            "xtrabackup",
            "mariabackup",
            "innobackupex",
        ],
        except: "mysqld",
        option: "-p",
        separate: false,
        after_colon: false,
    },
    Client {
        prefixes: &["mysqldump"],
        except: "\0",
        option: "-p",
        separate: false,
        after_colon: false,
    },
    Client {
        prefixes: &["sshpass"],
        except: "\0",
        option: "-p",
        separate: true,
        after_colon: false,
    },
    Client {
        prefixes: &["mongo"],
        except: "mongod",
        option: "-p",
        separate: true,
        after_colon: false,
    },
    Client {
        prefixes: &["mongodump"],
        except: "\0",
        option: "-p",
        separate: true,
        after_colon: false,
    },
    Client {
        prefixes: &["redis-cli"],
        except: "\0",
        option: "-a",
        separate: true,
        after_colon: false,
    },
    Client { prefixes: &["ldap"], except: "\0", option: "-w", separate: true, after_colon: false },
    Client { prefixes: &["curl"], except: "\0", option: "-u", separate: true, after_colon: true },
    Client { prefixes: &["curl"], except: "\0", option: "-U", separate: true, after_colon: true },
    Client {
        prefixes: &["curl"],
        except: "\0",
        option: "--user",
        separate: true,
        after_colon: true,
    },
    Client {
        prefixes: &["curl"],
        except: "\0",
        option: "--proxy-user",
        separate: true,
        after_colon: true,
    },
];

/// Hides secrets, with the configured patterns besides the built-in rules.
#[derive(Debug, Default)]
pub(super) struct Redactor {
    patterns: Vec<Pattern>,
}

impl Redactor {
    /// Built-in rules and `patterns`.
    pub(super) fn new(patterns: Vec<Pattern>) -> Self {
        Self { patterns }
    }

    /// The arguments joined by single spaces, without their secrets.
    pub(super) fn redact<'a>(&self, arguments: impl Iterator<Item = &'a str>) -> String {
        let mut line = String::new();
        let mut words = Words::default();
        for (index, argument) in arguments.enumerate() {
            if index > 0 {
                line.push(' ');
            }
            words.argument(argument, &mut line);
        }
        for Pattern(pattern) in &self.patterns {
            line = inline::mask_matches(pattern, &line);
        }
        line
    }
}

/// What the words so far say about the next one.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Plain,
    /// The value of a secret option, unless it is an option itself (then the first asks at the terminal).
    OptionValue,
    /// A secret.
    Value,
    /// A secret, or first the name of an authorization scheme.
    Authorization,
    /// `user:secret`.
    AfterColon,
}

/// Reads words one after the other.
#[derive(Default)]
struct Words {
    /// The word before was a client of the table, or still waits for the option of one.
    program: Option<String>,
    next: Next,
    /// Inside a hidden value that began with this quotation mark in an earlier word.
    quote: Option<char>,
}

impl Words {
    /// Appends one argument of the command line.
    fn argument(&mut self, argument: &str, line: &mut String) {
        let hidden_whole = matches!(self.next, Next::Value)
            || (self.next == Next::OptionValue && !argument.starts_with('-'));
        if hidden_whole || !argument.contains(char::is_whitespace) {
            self.word(argument, line);
            self.quote = None;
            return;
        }
        let mut inner = Self { next: self.next, ..Self::default() };
        self.next = Next::Plain;
        // Separators are kept; those inside a hidden quotation vanish with it.
        let mut rest = argument;
        while !rest.is_empty() {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let next = after.find(|letter: char| !letter.is_whitespace()).unwrap_or(after.len());
            if !word.is_empty() {
                inner.word(word, line);
            }
            if inner.quote.is_none() {
                line.push_str(&after[..next]);
            }
            rest = &after[next..];
        }
    }

    /// Appends one word.
    fn word(&mut self, word: &str, line: &mut String) {
        if let Some(quote) = self.quote {
            if let Some((_, rest)) = word.split_once(quote) {
                self.quote = None;
                line.push_str(&inline::redact_word(rest));
            }
            return;
        }
        match std::mem::take(&mut self.next) {
            Next::OptionValue if word.starts_with('-') => {}
            Next::Authorization if is_scheme(word) => {
                self.next = Next::Value;
                line.push_str(word);
                return;
            }
            Next::OptionValue | Next::Value | Next::Authorization => {
                if matches!(word, "=" | ":") {
                    self.next = Next::Value;
                    line.push_str(word);
                } else {
                    self.hide(word, line);
                }
                return;
            }
            Next::AfterColon => {
                push_after_colon(word, line);
                return;
            }
            Next::Plain => {}
        }
        if self.client_option(word, line) || self.named(word, line) {
            return;
        }
        let redacted = inline::redact_word(word);
        self.quote = redacted
            .strip_suffix(MASK)
            .and_then(|before| before.chars().next_back())
            .filter(|last| matches!(last, '"' | '\''));
        line.push_str(&redacted);
    }

    /// Appends the mask, and remembers a quotation that goes on in the next word.
    fn hide(&mut self, value: &str, line: &mut String) {
        self.quote =
            value.chars().next().filter(|first| matches!(first, '"' | '\'')).filter(|&first| {
                value.len() < 2 || !value.trim_end_matches([',', '}', ']', ';']).ends_with(first)
            });
        line.push_str(MASK);
    }

    /// Whether `word` is a short option of a known client before it, and then appends it.
    fn client_option(&mut self, word: &str, line: &mut String) -> bool {
        if !word.starts_with('-') {
            if matches!(word, ";" | "|" | "||" | "&&" | "&") {
                self.program = None;
            }
            let name = word.rsplit('/').next().unwrap_or(word).trim_matches(['"', '\'', '(', '`']);
            if clients_of(name).next().is_some() {
                self.program = Some(name.to_owned());
            }
            return false;
        }
        let Some(program) = &self.program else { return false };
        let Some((client, value)) = clients_of(program)
            .find_map(|client| word.strip_prefix(client.option).map(|value| (client, value)))
        else {
            return false;
        };
        if value.is_empty() {
            if client.separate {
                self.next = if client.after_colon { Next::AfterColon } else { Next::Value };
                self.program = None;
            }
            line.push_str(word);
        } else if client.option.starts_with("--") {
            let Some(value) = value.strip_prefix('=') else { return false };
            line.push_str(&word[..=client.option.len()]);
            push_after_colon(value, line);
        } else {
            line.push_str(client.option);
            if client.after_colon {
                push_after_colon(value, line);
            } else {
                self.hide(value, line);
            }
            self.program = None;
        }
        true
    }

    /// Whether `word` names a secret, and then appends it: `name=value`, `name:`, `--name`.
    fn named(&mut self, word: &str, line: &mut String) -> bool {
        let mut start = 0;
        while let Some(length) = word[start..].find('=') {
            let (key, value) = (&word[start..start + length], &word[start + length + 1..]);
            if !keys::is_plain(key) {
                return false;
            }
            if keys::is_secret(key) && !value.is_empty() {
                line.push_str(&word[..=start + length]);
                self.hide(value, line);
                return true;
            }
            start += length + 1;
        }
        if start > 0 {
            return false;
        }
        if let Some(key) = word.strip_suffix(':').filter(|key| keys::is_plain(key)) {
            if keys::is_authorization(key) {
                self.next = Next::Authorization;
            } else if keys::is_secret(key) {
                self.next = Next::Value;
            }
        } else if word.starts_with('-') && keys::is_plain(word) && keys::takes_secret(word) {
            self.next = Next::OptionValue;
        }
        if self.next == Next::Plain {
            return false;
        }
        line.push_str(word);
        true
    }
}

fn clients_of(name: &str) -> impl Iterator<Item = &'static Client> {
    CLIENTS.iter().filter(move |client| {
        client.prefixes.iter().any(|prefix| name.starts_with(prefix))
            && !name.starts_with(client.except)
    })
}

fn is_scheme(word: &str) -> bool {
    ["basic", "bearer", "digest", "negotiate", "token", "apikey"]
        .iter()
        .any(|scheme| word.trim_start_matches(['"', '\'']).eq_ignore_ascii_case(scheme))
}

/// `user:***`; a value without a colon is a user name alone.
fn push_after_colon(value: &str, line: &mut String) {
    match value.split_once(':') {
        Some((user, _)) => {
            line.push_str(user);
            line.push(':');
            line.push_str(MASK);
        }
        None => line.push_str(value),
    }
}

#[cfg(test)]
mod tests;
