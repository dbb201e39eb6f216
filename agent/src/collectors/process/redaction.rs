//! Hides secrets in command lines, on the host, before anything is hashed or sent.
//!
//! A command line is read as words: its arguments, and the words inside an argument that itself holds
//! white space (`sh -c "…"`, a header, a process title). What is recognised:
//!
//! - options, variables and pairs whose *name* is that of a secret (`--password=x`, `--password x`,
//!   `PGPASSWORD=x`, `-Ddb.password=x`, `"apiKey": "x"`, `;Pwd=x;`), see [`keys`]. Names that go on after the
//!   secret's (`--password-file`, `--token-ttl`) are not;
//! - short options that carry a secret in *known clients only* ([`clients`]): `-psecret` of the mysql
//!   family, but not `-p 3306` of anything else; their commands that do (`redis-cli AUTH …`);
//! - the password of a URL (`scheme://user:password@host`), or its user where that is the token;
//! - values of `Authorization:`, and tokens with a known shape, our own `pfj1_…` and `pfk1_…` first;
//! - across words: `IDENTIFIED BY '…'` and `PASSWORD '…'` of SQL, private keys in PEM;
//! - what `[redaction] patterns` of the configuration match: group 1 if the pattern has one, else all.
//!
//! The secret becomes [`MASK`], whatever its length. When in doubt more is hidden. What no rule can see
//! (a bare secret as an argument of an unknown program) stays: hence the configurable patterns.

mod clients;
mod inline;
mod keys;

use self::clients::{Holds, clients_of};
use super::titles;
use crate::profile::Pattern;

/// What stands for a secret.
pub(super) const MASK: &str = "***";

/// Hides secrets, with the configured patterns besides the built-in rules, and then what changes in
/// titles: no rule for titles sees a secret.
#[derive(Debug, Default)]
pub struct Redactor {
    patterns: Vec<Pattern>,
    titles: titles::Options,
}

impl Redactor {
    /// Built-in rules and `patterns`; what is left is shortened by `titles`.
    pub fn new(patterns: Vec<Pattern>, titles: titles::Options) -> Self {
        Self { patterns, titles }
    }

    /// The configured patterns.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// The arguments joined by single spaces, without their secrets.
    pub fn redact<'a>(&self, arguments: impl Iterator<Item = &'a str>) -> String {
        let mut line = String::new();
        let mut words = Words::default();
        for (index, argument) in arguments.enumerate() {
            if index > 0 {
                line.push(' ');
            }
            words.argument(argument, &mut line);
        }
        inline::redact_line(&mut line);
        for Pattern(pattern) in &self.patterns {
            line = inline::mask_matches(pattern, &line);
        }
        self.titles.shorten(&line).unwrap_or(line)
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
    /// `user:secret`, with this separator.
    After(char),
    /// Secrets up to the end.
    Rest,
}

/// Reads words one after the other.
#[derive(Default)]
struct Words {
    /// A program of the table that the words before named, and whether `login` followed.
    program: Option<String>,
    logs_in: bool,
    next: Next,
    /// Inside a hidden value that began with this quotation mark in an earlier word.
    quote: Option<char>,
}

impl Words {
    /// Appends one argument of the command line.
    fn argument(&mut self, argument: &str, line: &mut String) {
        let hidden_whole = matches!(self.next, Next::Value | Next::Rest)
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
            Next::After(separator) => {
                push_after(separator, word, line);
                return;
            }
            Next::Rest => {
                self.next = Next::Rest;
                self.hide(word, line);
                self.quote = None;
                return;
            }
            Next::Plain => {}
        }
        if self.client_word(word, line) || self.named(word, line) {
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

    /// Whether `word` carries a secret, or announces one, in the known client before it; then it
    /// is appended.
    fn client_word(&mut self, word: &str, line: &mut String) -> bool {
        if word.starts_with('-') {
            return self.client_option(word, line);
        }
        if matches!(word, ";" | "|" | "||" | "&&" | "&") {
            self.program = None;
        }
        if let Some(program) = &self.program {
            self.logs_in |= word == "login";
            if let Some((start, end)) = clients::slashed(program, word) {
                line.push_str(&word[..start]);
                line.push_str(MASK);
                line.push_str(&word[end..]);
                return true;
            }
            if clients::is_command(program, word) {
                self.next = Next::Rest;
                line.push_str(word);
                return true;
            }
        }
        let name = word.rsplit('/').next().unwrap_or(word).trim_matches(['"', '\'', '(', '`']);
        if clients::is_known(name) {
            (self.program, self.logs_in) = (Some(name.to_owned()), false);
        }
        false
    }

    /// [`Self::client_word`] of an option.
    fn client_option(&mut self, word: &str, line: &mut String) -> bool {
        let Some(program) = &self.program else { return false };
        if clients::LOGINS.contains(&program.as_str()) && !self.logs_in {
            return false;
        }
        let is_curl = program.starts_with("curl") && !word.starts_with("--");
        let flags = word.len() - word[1..].trim_start_matches(clients::CURL_FLAGS).len() - 1;
        let single = format!("-{}", &word[1 + flags..]);
        let sought = if is_curl && flags > 0 { single.as_str() } else { word };
        // `--user=x` is `--user` with a value, `-ux` is `-u` with one; `--userx` is neither.
        let attached = |option: &str| match sought.strip_prefix(option)? {
            "" => Some(0),
            value if option.starts_with("--") => value.strip_prefix('=').map(str::len),
            value => Some(value.len()),
        };
        let found = clients_of(program).find_map(|client| {
            let length = client.options.iter().find_map(|option| attached(option))?;
            (length == 0 || client.holds != Holds::Next).then_some((client.holds, length))
        });
        let Some((holds, length)) = found else { return false };
        let (option, value) = word.split_at(word.len() - length);
        if clients::WRAPPERS.contains(&program.as_str()) {
            self.program = None;
        }
        line.push_str(option);
        match (holds, value.is_empty()) {
            (Holds::Attached, true) => {}
            (Holds::Value | Holds::Next, true) => self.next = Next::Value,
            (Holds::After(separator), true) => self.next = Next::After(separator),
            (Holds::After(separator), false) => push_after(separator, value, line),
            (_, false) => self.hide(value, line),
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

fn is_scheme(word: &str) -> bool {
    ["basic", "bearer", "digest", "negotiate", "token", "apikey"]
        .iter()
        .any(|scheme| word.trim_start_matches(['"', '\'']).eq_ignore_ascii_case(scheme))
}

/// `user:***`; a value without the separator is a user name alone.
fn push_after(separator: char, value: &str, line: &mut String) {
    match value.split_once(separator) {
        Some((user, _)) => {
            line.push_str(user);
            line.push(separator);
            line.push_str(MASK);
        }
        None => line.push_str(value),
    }
}

#[cfg(test)]
mod tests;
