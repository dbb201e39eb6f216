//! Secrets inside one word: URLs, pairs in connection strings and JSON, tokens with a known shape.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex_lite::{Captures, Regex};

use super::{MASK, keys};

/// Patterns whose group 1 stays and whose group 2 is hidden.
static RULES: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    const NAME: &str = r"[a-z0-9_.\-]*(?:password|passwd|passphrase|secret|token|pwd|(?:api|access|account|secret|private|shared)[_\-]?key)";
    [
        // Our own.
        r"(pf[jk]1_)(\S+)".to_owned(),
        // JSON web tokens; GitHub, GitLab and Slack tokens.
        r"\b()(eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]*)".to_owned(),
        r"\b(gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-)([A-Za-z0-9_\-]{10,})".to_owned(),
        // `;Password=x;`, `?token=x&`, `user=a,password=b`.
        format!(r#"(?i)(\b{NAME}["']?=["']?)([^\s"'&;,}}]+)"#),
        // `"password":"x"`, `pass:x`; not `//secret:8080`.
        format!(r#"(?i)((?:^|[{{,"'\s])(?:{NAME}|pass)["']?:["']?)([^\s"'&;,}}/][^\s"'&;,}}]*)"#),
    ]
    .iter()
    .map(|pattern| {
        #[expect(clippy::expect_used, reason = "constant patterns, compiled by every test run")]
        Regex::new(pattern).expect("a constant pattern")
    })
    .collect()
});

/// The word without its secrets.
pub(super) fn redact_word(word: &str) -> Cow<'_, str> {
    let mut word = redact_urls(word);
    for rule in RULES.iter() {
        if rule.is_match(&word) {
            let hidden = rule.replace_all(&word, |found: &Captures<'_>| {
                let (name, value) = (&found[1], &found[2]);
                let is_secret = !keys::is_directory(name.trim_end_matches('='));
                format!("{name}{}", if is_secret { MASK } else { value })
            });
            word = Cow::Owned(hidden.into_owned());
        }
    }
    word
}

/// `line` with every match hidden: its group 1 if the pattern has one, else the whole.
pub(super) fn mask_matches(pattern: &Regex, line: &str) -> String {
    let mut masked = String::with_capacity(line.len());
    let mut end = 0;
    for found in pattern.captures_iter(line) {
        let Some(secret) = found.get(1).or_else(|| found.get(0)) else { continue };
        if secret.start() < end || secret.range().is_empty() {
            continue;
        }
        masked.push_str(&line[end..secret.start()]);
        masked.push_str(MASK);
        end = secret.end();
    }
    masked.push_str(&line[end..]);
    masked
}

/// Hides the password of every `scheme://user:password@…`, and a user without password where the
/// scheme is HTTP (a token; `ssh://git@` names a user).
fn redact_urls(word: &str) -> Cow<'_, str> {
    if !(word.contains("://") && word.contains('@')) {
        return Cow::Borrowed(word);
    }
    let mut redacted = String::with_capacity(word.len());
    let mut pieces = word.split("://");
    redacted.push_str(pieces.next().unwrap_or_default());
    // A piece ends with the scheme of the next URL of a list, which holds no secret.
    for piece in pieces {
        let http = redacted.ends_with("http") || redacted.ends_with("https");
        redacted.push_str("://");
        redact_authority(piece, http, &mut redacted);
    }
    Cow::Owned(redacted)
}

/// Appends what follows `://`, without its secret.
fn redact_authority(piece: &str, http: bool, redacted: &mut String) {
    let strict = piece.find(['/', '?', '#']).unwrap_or(piece.len());
    let authority = &piece[..strict];
    let at = authority.rfind('@').or_else(|| {
        // A password with an unescaped `/`: what follows the colon is then no port number.
        let (_, port) = authority.split_once(':')?;
        let is_port = port.is_empty() || port.bytes().all(|byte| byte.is_ascii_digit());
        if is_port { None } else { piece.rfind('@') }
    });
    let Some(at) = at else {
        redacted.push_str(piece);
        return;
    };
    let (user, host) = piece.split_at(at);
    match user.split_once(':') {
        Some((name, password)) if !password.is_empty() => {
            redacted.push_str(name);
            redacted.push(':');
            redacted.push_str(MASK);
        }
        None if http => redacted.push_str(MASK),
        _ => redacted.push_str(user),
    }
    redacted.push_str(host);
}
