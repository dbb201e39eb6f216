//! Secrets inside one word: URLs, pairs in connection strings and JSON, tokens with a known shape.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex_lite::{Captures, Regex};

use super::{MASK, keys};

/// Shortest word that holds a token of a known shape, bytes.
const SHORTEST_TOKEN: usize = 6;
/// Parts of names, in lower case, one of which is in every name of a secret.
const NAME_PARTS: &[&str] = &["pass", "secret", "token", "pwd", "key"];

/// A pattern whose group 1 stays and whose group 2 is hidden. Where none of the texts occurs it cannot
/// match: looking for those is a hundred times cheaper, and most words hold none.
struct Rule {
    texts: &'static [&'static str],
    pattern: Regex,
}

/// Tokens that are known by their shape; texts as they stand.
static SHAPES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    vec![
        // Our own.
        rule(&["pfj1_", "pfk1_"], r"(pf[jk]1_)(\S+)"),
        // JSON web tokens.
        rule(&["eyJ"], r"\b()(eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]*)"),
        // GitHub, GitLab, Slack, Stripe, npm, PyPI, Hugging Face, DigitalOcean, model providers, Vault.
        rule(
            &[
                "ghp_",
                "gho_",
                "ghu_",
                "ghs_",
                "ghr_",
                "github_pat_",
                "glpat-",
                "xox",
                "xapp-",
                "k_live_",
                "k_test_",
                "npm_",
                "pypi-",
                "hf_",
                "dop_v1_",
                "sk-",
                "hvs.",
                "hvb.",
                "hvr.",
            ],
            r"\b(gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|xapp-|[sr]k_live_|[sr]k_test_|npm_|pypi-|hf_|dop_v1_|sk-|hv[sbr]\.)([A-Za-z0-9_\-]{10,})",
        ),
        // AWS access keys; Google's API keys, access tokens and client secrets; Azure's signatures.
        rule(&["AKIA", "ASIA"], r"\b(AKIA|ASIA)([0-9A-Z]{16})\b"),
        rule(&["AIza", "ya29.", "GOCSPX-"], r"\b(AIza|ya29\.|GOCSPX-)([0-9A-Za-z_\-]{20,})"),
        rule(
            &["sig=", "ignature="],
            r"(?i)([?&](?:sig|x-amz-signature|x-goog-signature)=)([^\s&]+)",
        ),
        // Robots of chat services, whose address is the secret; the last is Telegram's.
        rule(&["hooks.slack.com/"], r"(hooks\.slack\.com/(?:services|workflows)/)(\S+)"),
        rule(
            &["webhook/send?key", "open-apis/bot/v2/hook"],
            r"((?:webhook/send\?key|open-apis/bot/v2/hook)[=/])([^\s&]+)",
        ),
        rule(&["/bot"], r"(/bot[0-9]{6,}:)([A-Za-z0-9_\-]{20,})"),
    ]
});

/// Pairs of a secret's name and its value.
static PAIRS: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    const NAME: &str = r"[a-z0-9_.\-]*(?:password|passwd|passphrase|secret|token|pwd|(?:api|access|account|secret|private|shared)[_\-]?key)";
    let after_equals = format!(r#"(?i)(\b{NAME}["']?=["']?)([^\s"'&;,}}]+)"#);
    let after_colon =
        format!(r#"(?i)((?:^|[{{,"'\s])(?:{NAME}|pass)["']?:["']?)([^\s"'&;,}}/][^\s"'&;,}}]*)"#);
    vec![
        // `;Password=x;`, `?token=x&`, `user=a,password=b`.
        rule(&["="], &after_equals),
        // `"password":"x"`, `pass:x`; not `//secret:8080`.
        rule(&[":"], &after_colon),
    ]
});

fn rule(texts: &'static [&'static str], pattern: &str) -> Rule {
    #[expect(clippy::expect_used, reason = "constant patterns, compiled by every test run")]
    let pattern = Regex::new(pattern).expect("a constant pattern");
    Rule { texts, pattern }
}

/// The word without its secrets.
pub(super) fn redact_word(word: &str) -> Cow<'_, str> {
    let mut word = redact_urls(word);
    if word.len() >= SHORTEST_TOKEN {
        for rule in SHAPES.iter() {
            apply(rule, &mut word);
        }
    }
    if word.contains(['=', ':']) {
        let lower = word.to_ascii_lowercase();
        if NAME_PARTS.iter().any(|part| lower.contains(part)) {
            for rule in PAIRS.iter() {
                apply(rule, &mut word);
            }
        }
    }
    word
}

fn apply(rule: &Rule, word: &mut Cow<'_, str>) {
    if !rule.texts.iter().any(|text| word.contains(text)) || !rule.pattern.is_match(word) {
        return;
    }
    let hidden = rule.pattern.replace_all(word, |found: &Captures<'_>| {
        let (name, value) = (&found[1], &found[2]);
        let is_secret = !keys::is_directory(name.trim_end_matches('='));
        format!("{name}{}", if is_secret { MASK } else { value })
    });
    *word = Cow::Owned(hidden.into_owned());
}

/// Secrets that span words: (a word, in lower case, without which there is none; where the secret is).
static LINE_RULES: LazyLock<Vec<(&str, Regex)>> = LazyLock::new(|| {
    [
        (
            "identified",
            r#"(?i)\bidentified\s+(?:with\s+\S+\s+)?(?:by|as)\s+(?:password\s+)?('[^']*'?|"[^"]*"?|[^\s;]+)"#,
        ),
        ("password", r#"(?i)\bpassword(?:\s+|\s*[=(]\s*)('[^']+'?|"[^"]+"?)"#),
        ("private key", r"(?i)-----BEGIN [A-Z ]*PRIVATE KEY-----(.*?)(?:-----END|$)"),
    ]
    .into_iter()
    .map(|(word, pattern)| {
        #[expect(clippy::expect_used, reason = "constant patterns, compiled by every test run")]
        let pattern = Regex::new(pattern).expect("a constant pattern");
        (word, pattern)
    })
    .collect()
});

/// Hides what only the whole line tells.
pub(super) fn redact_line(line: &mut String) {
    let mut lower = None;
    for (word, pattern) in LINE_RULES.iter() {
        if lower.get_or_insert_with(|| line.to_ascii_lowercase()).contains(word) {
            *line = mask_matches(pattern, line);
        }
    }
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
