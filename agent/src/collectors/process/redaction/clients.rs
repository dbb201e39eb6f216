//! Short options and words that carry a secret in some programs, and in no others.

/// Where the secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// Attached to the option (`-pSECRET`); without a value the program asks at the terminal.
    Attached,
    /// Attached, or the next word.
    Value,
    /// The next word and nothing else (`-k secret`, but `-kfile path`).
    Next,
    /// Attached, or the next word, but only what follows the first of these characters is secret (`user:secret`).
    After(char),
}

/// One option of some programs.
pub(super) struct Client {
    /// Base names of the programs begin with one of these (are it, where it ends with `$`) …
    prefixes: &'static [&'static str],
    /// … and with none of these (`mysqld` is no client).
    except: &'static [&'static str],
    /// The options.
    pub(super) options: &'static [&'static str],
    /// What follows them.
    pub(super) holds: Holds,
}

const fn client(
    prefixes: &'static [&'static str],
    except: &'static [&'static str],
    options: &'static [&'static str],
    holds: Holds,
) -> Client {
    Client { prefixes, except, options, holds }
}

const MYSQL: &[&str] = &[
    "mysql",
    "mariadb",
    "mydumper",
    "myloader",
    "mycli",
    "xtrabackup",
    "mariabackup",
    "innobackupex",
    "pt-",
];
const MYSQL_SERVERS: &[&str] = &["mysqld_", "mysqld-", "mariadbd"];

#[rustfmt::skip]
const CLIENTS: &[Client] = &[
    client(MYSQL, MYSQL_SERVERS, &["-p"], Holds::Attached),
    client(&["sshpass", "cqlsh", "twine", "rdesktop"], &[], &["-p"], Holds::Value),
    client(&["mongo"], &["mongod", "mongos"], &["-p"], Holds::Value),
    client(&["mongodump", "mongosh", "mongostat"], &[], &["-p"], Holds::Value),
    client(&["redis-cli", "valkey-cli", "keydb-cli"], &[], &["-a"], Holds::Value),
    client(&["ldap"], &[], &["-w"], Holds::Value),
    client(&["curl"], &[], &["-u", "-U", "--user", "--proxy-user"], Holds::After(':')),
    client(&["curl"], &[], &["--pass", "--key-passwd", "--oauth2-bearer"], Holds::Value),
    client(&["http$", "https$"], &[], &["-a", "--auth"], Holds::After(':')),
    client(&["etcdctl"], &[], &["--user"], Holds::After(':')),
    client(&["openssl"], &[], &["-k", "-K", "-psk"], Holds::Next),
    client(&["docker", "podman", "nerdctl", "helm"], &["dockerd", "docker-"], &["-p"], Holds::Value),
    client(&["sqlcmd$", "bcp$", "zip$", "unzip$", "ipmitool$"], &[], &["-P"], Holds::Value),
    client(&["7z$", "7za$", "7zz$"], &[], &["-p"], Holds::Attached),
    client(&["ssh-keygen"], &[], &["-N", "-P"], Holds::Value),
    client(&["smbclient", "rpcclient"], &[], &["-U", "--user"], Holds::After('%')),
    client(&["lftp"], &[], &["-u"], Holds::After(',')),
    client(&["snmp"], &["snmpd", "snmptrapd"], &["-A", "-X", "-c"], Holds::Value),
];

/// Programs, and a word after which everything is secret (`redis-cli AUTH user secret`,
/// `mysqladmin password new`, `aws configure set aws_secret_access_key …`).
const COMMANDS: &[(&[&str], &str)] = &[
    (&["redis-cli", "valkey-cli", "keydb-cli"], "auth"),
    (&["redis-cli", "valkey-cli", "keydb-cli"], "requirepass"),
    (&["redis-cli", "valkey-cli", "keydb-cli"], "masterauth"),
    (&["mysqladmin", "mariadb-admin"], "password"),
    (&["aws"], "aws_secret_access_key"),
    (&["aws"], "aws_session_token"),
];

/// Programs whose first words are `user/secret@database`.
const SLASHED: &[&str] = &["sqlplus", "expdp", "impdp", "sqlldr", "rman"];

/// Options of `docker` and its kin hold a secret in `login` only; elsewhere `-p` is a port.
pub(super) const LOGINS: &[&str] = &["docker", "podman", "nerdctl", "helm"];

/// Programs that run the one named after their options: those are not theirs any more.
pub(super) const WRAPPERS: &[&str] = &["sshpass"];

/// Flags of curl that may stand before another one in the same word (`-sku user:secret`).
pub(super) const CURL_FLAGS: &[char] =
    &['s', 'S', 'k', 'L', 'f', 'v', 'i', 'I', 'g', 'G', 'N', 'O', '#', '4', '6'];

/// What is known of the options of the program `name`.
pub(super) fn clients_of(name: &str) -> impl Iterator<Item = &'static Client> {
    CLIENTS.iter().filter(move |client| {
        let starts = |prefix: &&str| match prefix.strip_suffix('$') {
            Some(whole) => name == whole,
            None => name.starts_with(*prefix),
        };
        let is_server = name == "mysqld" || client.except.iter().any(starts);
        client.prefixes.iter().any(starts) && !is_server
    })
}

/// Whether anything is known of `name`.
pub(super) fn is_known(name: &str) -> bool {
    clients_of(name).next().is_some()
        || SLASHED.contains(&name)
        || COMMANDS.iter().any(|(programs, _)| programs.contains(&name))
}

/// Whether all that follows `word` is secret in `program`.
pub(super) fn is_command(program: &str, word: &str) -> bool {
    let is_it = |(programs, command): &&(&[&str], &str)| {
        programs.contains(&program) && word.eq_ignore_ascii_case(command)
    };
    COMMANDS.iter().any(|command| is_it(&command))
}

/// The secret's place in `user/secret@database`, where `program` takes such a word.
pub(super) fn slashed(program: &str, word: &str) -> Option<(usize, usize)> {
    if !SLASHED.contains(&program) || word.starts_with(['/', '@', '-']) {
        return None;
    }
    let start = word.find('/')? + 1;
    let end = word.rfind('@').filter(|&at| at > start).unwrap_or(word.len());
    (start < end).then_some((start, end))
}
