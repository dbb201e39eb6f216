//! Which names are those of secrets.
//!
//! A name is cut into parts at punctuation and at a capital after a small letter, and only its *end*
//! counts: `db.password` and `clientSecret` are secrets, `password-file`, `token_ttl` and `secretName`
//! are about one.

/// Longest name considered, bytes.
const MAX_NAME_BYTES: usize = 128;

/// Last parts that name a secret.
const SECRETS: &[&str] = &[
    "pass",
    "pwd",
    "pw",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "authkey",
    "dbpass",
    "userpass",
    "rootpass",
    "requirepass",
    "masterauth",
    "sshpass",
    "credential",
    "credentials",
    "auth",
];
/// Ends of last parts that name a secret: `pgpassword`, `authtoken`.
const SECRET_ENDS: &[&str] = &["password", "passwd", "passphrase", "passwort", "secret", "token"];
/// Parts before `key` that make it a secret's name.
const KEY_KINDS: &[&str] = &[
    "access",
    "account",
    "api",
    "auth",
    "encryption",
    "license",
    "master",
    "private",
    "secret",
    "shared",
    "signing",
];
/// First parts of switches without a value: `--no-password`, `--ask-pass`.
const SWITCHES: &[&str] = &[
    "allow", "ask", "change", "disable", "enable", "no", "print", "prompt", "require", "reset",
    "show", "skip", "use", "with", "without",
];

/// Whether `key` has the form of a name, with what may stand before it: dashes, a quotation mark, a brace.
pub(super) fn is_plain(key: &str) -> bool {
    let name = bare(key);
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-[]/:$@".contains(&byte))
        && !name.contains("://")
}

/// Whether the value of `key` is a secret.
pub(super) fn is_secret(key: &str) -> bool {
    if is_directory(key) {
        return false;
    }
    let parts = parts(bare(key));
    let Some((last, before)) = parts.split_last() else { return false };
    SECRETS.contains(&last.as_str())
        || SECRET_ENDS.iter().any(|end| last.ends_with(end))
        || (last == "key" && before.last().is_some_and(|kind| KEY_KINDS.contains(&kind.as_str())))
}

/// Whether `key` is a shell's variable for a working directory, not a password.
pub(super) fn is_directory(key: &str) -> bool {
    matches!(key, "PWD" | "OLDPWD")
}

/// Whether the word after the option `key` is a secret.
pub(super) fn takes_secret(key: &str) -> bool {
    is_secret(key)
        && bare(key).len() > 1
        && !parts(bare(key)).first().is_some_and(|first| SWITCHES.contains(&first.as_str()))
}

/// Whether `key` is that of HTTP credentials.
pub(super) fn is_authorization(key: &str) -> bool {
    let name = bare(key);
    name.eq_ignore_ascii_case("authorization") || name.eq_ignore_ascii_case("proxy-authorization")
}

fn bare(key: &str) -> &str {
    key.trim_start_matches(['-', '"', '\'', '{', '(', '[', '`']).trim_end_matches(['"', '\''])
}

fn parts(name: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut after_small = false;
    for letter in name.chars() {
        let is_boundary =
            !letter.is_ascii_alphanumeric() || (letter.is_ascii_uppercase() && after_small);
        if is_boundary && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
        }
        if letter.is_ascii_alphanumeric() {
            part.push(letter.to_ascii_lowercase());
        }
        after_small = letter.is_ascii_lowercase();
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_name_counts() {
        for key in [
            "password",
            "--password",
            "PGPASSWORD",
            "MYSQL_PWD",
            "-Dspring.datasource.password",
            "clientSecret",
            "API_KEY",
            "apiKey",
            "--api-key",
            "AWS_SECRET_ACCESS_KEY",
            "accessToken",
            "x-api-key",
            "pwd",
            "db_pass",
            "\"private_key\"",
            "REDISCLI_AUTH",
            "AccountKey",
        ] {
            assert!(is_secret(key), "{key}");
        }
        for key in [
            "password-file",
            "PASSWORD_FILE",
            "tokenizer",
            "token-ttl",
            "secretName",
            "PWD",
            "OLDPWD",
            "compass",
            "bypass",
            "key",
            "--key",
            "primary_key",
            "max-tokens",
            "passwordless",
            "author",
            "",
        ] {
            assert!(!is_secret(key), "{key}");
        }
    }

    #[test]
    fn switches_take_no_value() {
        assert!(takes_secret("--password") && takes_secret("-token"));
        for key in ["--no-password", "--ask-pass", "--ask-become-pass", "--require-secret"] {
            assert!(!takes_secret(key), "{key}");
        }
    }
}
