//! What must be hidden, and what must not.

use proptest::prelude::*;

use super::*;

mod clients;

#[track_caller]
fn check(arguments: &[&str], expected: &str) {
    assert_eq!(Redactor::default().redact(arguments.iter().copied()), expected);
}

/// Arguments split at spaces.
#[track_caller]
fn check_line(line: &str, expected: &str) {
    check(&line.split(' ').collect::<Vec<_>>(), expected);
}

#[test]
fn options_with_a_secret_name() {
    for (line, expected) in [
        ("psql --password=hunter2 -h db", "psql --password=*** -h db"),
        ("app --password hunter2 -h db", "app --password *** -h db"),
        ("app -password hunter2", "app -password ***"),
        ("app --db-password=a=b,c;d", "app --db-password=***"),
        (
            "java -Dspring.datasource.password=x -jar a.jar",
            "java -Dspring.datasource.password=*** -jar a.jar",
        ),
        ("app --api-key=k --apiKey k2 --secret s", "app --api-key=*** --apiKey *** --secret ***"),
        ("vault login token=s.abc", "vault login token=***"),
        ("helm --set auth.password=abc,x=y", "helm --set auth.password=***"),
        (
            "docker run --env=MYSQL_ROOT_PASSWORD=a,b img",
            "docker run --env=MYSQL_ROOT_PASSWORD=*** img",
        ),
        ("env PGPASSWORD=secret psql -p 5432", "env PGPASSWORD=*** psql -p 5432"),
        ("MYSQL_PWD=x AWS_SECRET_ACCESS_KEY=/a+b x", "MYSQL_PWD=*** AWS_SECRET_ACCESS_KEY=*** x"),
        (
            "redis-server --requirepass foo --port 6379",
            "redis-server --requirepass *** --port 6379",
        ),
        ("openssl rsa -passin pass:abc", "openssl rsa -passin pass:***"),
    ] {
        check_line(line, expected);
    }
    check(&["app", "--password", "two words"], "app --password ***");
    check(&["app", "--password", ""], "app --password ***");
}

#[test]
fn short_options_of_known_clients() {
    for (line, expected) in [
        ("mysql -uroot -phunter2 db", "mysql -uroot -p*** db"),
        ("/usr/bin/mysqldump -h x -p3306 db", "/usr/bin/mysqldump -h x -p*** db"),
        ("mariadb-admin -pX status", "mariadb-admin -p*** status"),
        ("sudo mysql -pX", "sudo mysql -p***"),
        ("sshpass -p X ssh -p 22 host", "sshpass -p *** ssh -p 22 host"),
        ("redis-cli -a X -p 6379 ping", "redis-cli -a *** -p 6379 ping"),
        ("mongosh -u a -p X", "mongosh -u a -p ***"),
        ("ldapsearch -x -w X -b dc=a", "ldapsearch -x -w *** -b dc=a"),
        ("curl -u bob:X https://h/", "curl -u bob:*** https://h/"),
        ("curl -ubob:X h", "curl -ubob:*** h"),
        ("curl --user=bob:X h", "curl --user=bob:*** h"),
        ("curl --proxy-user bob:X h", "curl --proxy-user bob:*** h"),
    ] {
        check_line(line, expected);
    }
    check(&["sh", "-c", "mysql -psecret db | gzip -p9"], "sh -c mysql -p*** db | gzip -p9");
}

#[test]
fn urls() {
    for (line, expected) in [
        ("app postgres://u:p@h/db", "app postgres://u:***@h/db"),
        ("app postgres://u:p@ss@h:5432/db?x=1", "app postgres://u:***@h:5432/db?x=1"),
        ("app postgres://u:p/ss@h/db", "app postgres://u:***@h/db"),
        ("git clone https://ghp0123@github.com/x", "git clone https://***@github.com/x"),
        (
            "app --brokers=amqp://a:b@h1,amqp://c:d@h2",
            "app --brokers=amqp://a:***@h1,amqp://c:***@h2",
        ),
        ("app http://:tok@h/", "app http://:***@h/"),
        ("app --url=https://h/x?token=abc&page=2", "app --url=https://h/x?token=***&page=2"),
    ] {
        check_line(line, expected);
    }
}

#[test]
fn pairs_headers_and_tokens_inside_arguments() {
    for (arguments, expected) in [
        (&["curl", "-H", "Authorization: Bearer abc.def"][..], "curl -H Authorization: Bearer ***"),
        (&["curl", "-H", "authorization: abcdef"], "curl -H authorization: ***"),
        (&["curl", "-H", "X-Api-Key: abc", "h"], "curl -H X-Api-Key: *** h"),
        (&["curl", "-H", "X-Api-Key:abc", "h"], "curl -H X-Api-Key:*** h"),
        (
            &["curl", "-d", r#"{"user":"a","password":"b c"}"#],
            r#"curl -d {"user":"a","password":"***}"#,
        ),
        (
            &["curl", "-d", r#"{"password": "b c", "user": "a"}"#],
            r#"curl -d {"password": ***, "user": "a"}"#,
        ),
        (&["app", "Server=h;Uid=sa;Pwd=x;Database=d"], "app Server=h;Uid=sa;Pwd=***;Database=d"),
        (&["mount", "-o", "user=a,password=b,vers=3"], "mount -o user=a,password=***,vers=3"),
        (&["psql", "host=h password='a b' user=x"], "psql host=h password=*** user=x"),
        (&["sh", "-c", "PGPASSWORD=\"a b\" psql -p 5432"], "sh -c PGPASSWORD=*** psql -p 5432"),
        (&["procfleet-agent", "enroll", "pfj1_eyJ2IjoxfQ"], "procfleet-agent enroll pfj1_***"),
        (&["x", "--key=pfk1_0a_b"], "x --key=pfk1_***"),
        (&["x", "eyJhbGciOiJI.eyJzdWIiOiIx.c2ln"], "x ***"),
        (&["x", "glpat-0123456789abcdef"], "x glpat-***"),
    ] {
        check(arguments, expected);
    }
}

#[test]
fn what_is_no_secret_stays() {
    for line in [
        "ssh -p2222 host",
        "server -p 3306",
        "mysqld -p3306",
        "mysqld --port=3306 --datadir=/var/lib/mysql",
        "mysql -p db",
        "mysql --protocol=tcp -P3306",
        "mkdir -p/tmp/x",
        "app --password-file=/run/secret --token-ttl=5 --secretName=x",
        "app --password-file /run/secret",
        "psql --no-password -h db",
        "mysql --password --user=x",
        "ansible --ask-pass --become x",
        "env PWD=/home/alice OLDPWD=/ x",
        "app http://secret:8080/token/x",
        "app ssh://git@github.com/x http://h:80/a@b",
        "app --max-tokens=100 --tokenizer=bpe --compass=north --bypass=yes",
        "gcc -pipe -pthread -DKEY=1 --primary-key=id",
        "tar --exclude=secrets -cf x",
        "user@host:path --author=bob@example.org",
        "docker run -p 8080:80 nginx",
        "openssl enc -kfile /etc/key -in a",
        "sqlplus / as sysdba",
        "http-server -a 0.0.0.0:80 /srv",
        "app sk-learn --task-id=sk-1 hf_x npm_run",
        "psql -c select * from password_resets where id = 'x'",
        "mysqld_safe -p3306",
        "redis-cli get author",
        "find /usr/share/webhook/send -name key",
    ] {
        check_line(line, line);
    }
}

#[test]
fn configured_patterns_hide_their_group_or_the_match() {
    let patterns = ["--pin (\\d+)", "CARD-\\d+"];
    let patterns = patterns.map(|pattern| Pattern::try_from(pattern.to_owned()).unwrap());
    let redactor = Redactor::new(patterns.into(), titles::Options::default());
    let line = ["x", "--pin", "1234", "CARD-99", "CARD-", "--pin", "5"];
    assert_eq!(redactor.redact(line.into_iter()), "x --pin *** *** CARD- --pin ***");
}

proptest! {
    #[test]
    fn nothing_panics_and_redaction_is_stable(
        arguments in proptest::collection::vec("[-a-z=:/@ '\"{},;&pP\u{e9}]{0,24}", 0..8),
    ) {
        let redactor = Redactor::default();
        let _ = redactor.redact(arguments.iter().map(String::as_str));
    }

    #[test]
    fn a_secret_after_its_name_never_survives(secret in "[a-zA-Z0-9!%^*+~]{6,30}", form in 0_usize..7) {
        let line = match form {
            0 => format!("app --password={secret}"),
            1 => format!("app --token {secret} x"),
            2 => format!("PGPASSWORD={secret} psql"),
            3 => format!("mysql -u x -p{secret} db"),
            4 => format!("app amqp://user:{secret}@host/vhost"),
            5 => format!("app a=b;Password={secret};c=d"),
            _ => format!("app pfk1_{secret}"),
        };
        let redacted = Redactor::default().redact(line.split(' '));
        prop_assert!(!redacted.contains(&secret), "{}", redacted);
    }
}
