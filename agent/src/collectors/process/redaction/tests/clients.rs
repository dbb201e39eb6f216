//! The usual clients and the usual tokens, one line each.

use super::{check, check_line};
use crate::collectors::process::redaction::Redactor;

/// Every secret here is `SECRET…`: none of it may be left, and the rest must be.
#[rustfmt::skip]
const LINES: &[(&str, &str)] = &[
    // mysql and its kin.
    ("mysql -h db -uapp -pSECRET1 shop", "mysql -h db -uapp -p*** shop"),
    ("mysql --password=SECRET1 -e status", "mysql --password=*** -e status"),
    ("mysqldump --single-transaction -pSECRET1 --all-databases", "mysqldump --single-transaction -p*** --all-databases"),
    ("mysqladmin -u root password SECRET1", "mysqladmin -u root password ***"),
    ("xtrabackup --backup --password SECRET1 --target-dir=/b", "xtrabackup --backup --password *** --target-dir=/b"),
    ("pt-online-schema-change -pSECRET1 D=shop,t=a", "pt-online-schema-change -p*** D=shop,t=a"),
    // psql and its kin.
    ("psql postgresql://app:SECRET1@db:5432/shop?sslmode=require", "psql postgresql://app:***@db:5432/shop?sslmode=require"),
    ("psql postgresql://db/shop?user=app&password=SECRET1", "psql postgresql://db/shop?user=app&password=***"),
    ("env PGPASSWORD=SECRET1 pg_dump -h db -p 5432 shop", "env PGPASSWORD=*** pg_dump -h db -p 5432 shop"),
    ("pg_basebackup -d host=db;password=SECRET1;user=r", "pg_basebackup -d host=db;password=***;user=r"),
    // redis.
    ("redis-cli -h r -p 6379 -a SECRET1 info", "redis-cli -h r -p 6379 -a *** info"),
    ("redis-cli --pass SECRET1 info", "redis-cli --pass *** info"),
    ("redis-cli AUTH app SECRET1", "redis-cli AUTH *** ***"),
    ("redis-cli CONFIG SET requirepass SECRET1", "redis-cli CONFIG SET requirepass ***"),
    ("redis-cli -u redis://app:SECRET1@r:6379/0", "redis-cli -u redis://app:***@r:6379/0"),
    ("redis-server *:6379 --masterauth SECRET1", "redis-server *:6379 --masterauth ***"),
    // mongo.
    ("mongosh -u app -p SECRET1 --authenticationDatabase admin", "mongosh -u app -p *** --authenticationDatabase admin"),
    ("mongodump --uri=mongodb+srv://app:SECRET1@c0.example.net/shop", "mongodump --uri=mongodb+srv://app:***@c0.example.net/shop"),
    ("mongorestore -pSECRET1 dump", "mongorestore -p*** dump"),
    // curl and its kin.
    ("curl -su app:SECRET1 https://h/", "curl -su app:*** https://h/"),
    ("curl -sSLuapp:SECRET1 https://h/", "curl -sSLuapp:*** https://h/"),
    ("curl -u app:SECRET1 -U p:SECRET2 h", "curl -u app:*** -U p:*** h"),
    ("curl --key-passwd SECRET1 --pass SECRET2 h", "curl --key-passwd *** --pass *** h"),
    ("curl --oauth2-bearer SECRET1 h", "curl --oauth2-bearer *** h"),
    ("wget --http-password=SECRET1 --http-user=a h", "wget --http-password=*** --http-user=a h"),
    ("http -a app:SECRET1 GET h", "http -a app:*** GET h"),
    // openssl, keys, archives.
    ("openssl enc -aes-256-cbc -k SECRET1 -in a", "openssl enc -aes-256-cbc -k *** -in a"),
    ("openssl enc -aes-256-cbc -K 00SECRET1 -iv 00", "openssl enc -aes-256-cbc -K *** -iv 00"),
    ("openssl rsa -in k -passin pass:SECRET1 -passout pass:SECRET2", "openssl rsa -in k -passin pass:*** -passout pass:***"),
    ("openssl s_client -psk SECRET1 -connect h:443", "openssl s_client -psk *** -connect h:443"),
    ("ssh-keygen -t ed25519 -N SECRET1 -f k", "ssh-keygen -t ed25519 -N *** -f k"),
    ("zip -P SECRET1 a.zip b", "zip -P *** a.zip b"),
    ("7z a -pSECRET1 a.7z b", "7z a -p*** a.7z b"),
    ("gpg --batch --passphrase SECRET1 -d f", "gpg --batch --passphrase *** -d f"),
    // java.
    ("java -Djavax.net.ssl.keyStorePassword=SECRET1 -jar a.jar", "java -Djavax.net.ssl.keyStorePassword=*** -jar a.jar"),
    ("java -Dspring.datasource.url=jdbc:mysql://h/d?user=u&password=SECRET1 -cp x Main", "java -Dspring.datasource.url=jdbc:mysql://h/d?user=u&password=*** -cp x Main"),
    ("java -Ddb.apiKey=SECRET1 -Xmx1g Main --spring.redis.password=SECRET2", "java -Ddb.apiKey=*** -Xmx1g Main --spring.redis.password=***"),
    // Other databases, directories, hosts, registries.
    ("sqlplus scott/SECRET1@orcl", "sqlplus scott/***@orcl"),
    ("expdp system/SECRET1 full=y", "expdp system/*** full=y"),
    ("sqlcmd -S h -U sa -P SECRET1", "sqlcmd -S h -U sa -P ***"),
    ("ldapsearch -x -D cn=a -wSECRET1", "ldapsearch -x -D cn=a -w***"),
    ("etcdctl --user root:SECRET1 get /", "etcdctl --user root:*** get /"),
    ("smbclient //h/s -U bob%SECRET1", "smbclient //h/s -U bob%***"),
    ("snmpwalk -v3 -A SECRET1 -X SECRET2 h", "snmpwalk -v3 -A *** -X *** h"),
    ("ipmitool -H h -U a -P SECRET1 power status", "ipmitool -H h -U a -P *** power status"),
    ("docker login -u me -p SECRET1 registry.example.net", "docker login -u me -p *** registry.example.net"),
    ("vault login -method=token token=SECRET1", "vault login -method=token token=***"),
    ("kubectl --token SECRET1 get pods", "kubectl --token *** get pods"),
    ("aws configure set aws_secret_access_key SECRET1", "aws configure set aws_secret_access_key ***"),
    ("npm config set //r.example.net/:_authToken=SECRET1", "npm config set //r.example.net/:_authToken=***"),
    // Variables.
    ("env AWS_SECRET_ACCESS_KEY=SECRET1 AWS_SESSION_TOKEN=SECRET2 app", "env AWS_SECRET_ACCESS_KEY=*** AWS_SESSION_TOKEN=*** app"),
    ("docker run -e POSTGRES_PASSWORD=SECRET1 -p 5432:5432 postgres", "docker run -e POSTGRES_PASSWORD=*** -p 5432:5432 postgres"),
    ("app GITHUB_TOKEN=SECRET1 STRIPE_API_KEY=SECRET2 DB_PASS=SECRET3", "app GITHUB_TOKEN=*** STRIPE_API_KEY=*** DB_PASS=***"),
];

#[test]
fn the_usual_clients() {
    for (line, expected) in LINES {
        check_line(line, expected);
        let secrets = ["SECRET1", "SECRET2", "SECRET3"];
        assert!(!secrets.iter().any(|secret| expected.contains(secret)), "{expected}");
    }
}

#[test]
fn tokens_with_a_known_shape() {
    // Put together here, so that no scanner of this file takes them for real ones.
    let long = "0123456789abcdefghijABCDEFGHIJ0123456789";
    for (before, secret, after) in [
        ("AKIA", "IOSFODNN7EXAMPLE", ""),
        ("ASIA", "IOSFODNN7EXAMPLE", ""),
        ("AIza", &long[..35], ""),
        ("ya29.", long, ""),
        ("GOCSPX-", &long[..28], ""),
        ("ghp_", &long[..36], ""),
        ("gho_", &long[..36], ""),
        ("github_pat_", long, ""),
        ("glpat-", &long[..20], ""),
        ("xoxb-", long, ""),
        ("xapp-", long, ""),
        ("https://hooks.slack.com/services/", long, ""),
        ("https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=", long, ""),
        ("https://oapi.dingtalk.com/robot/send?access_token=", long, ""),
        ("https://open.feishu.cn/open-apis/bot/v2/hook/", long, ""),
        ("https://api.telegram.org/bot123456789:", long, "/getMe"),
        ("sk_live_", &long[..24], ""),
        ("npm_", &long[..36], ""),
        ("hvs.", &long[..24], ""),
        ("https://a.blob.core.windows.net/c?sv=1&sig=", long, "&se=2"),
        ("https://b.s3.amazonaws.com/k?X-Amz-Signature=", long, ""),
        ("pfj1_", long, ""),
        ("pfk1_", long, ""),
    ] {
        let word = format!("{before}{secret}{after}");
        check(&["app", &word], &format!("app {before}***{after}"));
        let script = format!("app '{word}' x");
        let inside = Redactor::default().redact(["sh", "-c", &script].into_iter());
        assert!(!inside.contains(&secret[..15]), "{inside}");
    }
}

#[test]
fn secrets_that_span_words() {
    let key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nAQAB\n-----END RSA PRIVATE KEY-----";
    let key = key.replace('\n', " ");
    for (arguments, expected) in [
        (
            &["mysql", "-e", "create user a identified by 'x y'; select 1"][..],
            "mysql -e create user a identified by ***; select 1",
        ),
        (
            &["mysql", "-e", "ALTER USER a IDENTIFIED WITH plug BY \"x\""],
            "mysql -e ALTER USER a IDENTIFIED WITH plug BY ***",
        ),
        (
            &["psql", "-c", "alter role app with password 'x y' valid until 'infinity'"],
            "psql -c alter role app with password *** valid until 'infinity'",
        ),
        (&["mysql", "-e", "set password = 'x y'"], "mysql -e set password = ***"),
        (
            &["app", &key, "-v"],
            "app -----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY----- -v",
        ),
        (&["app", "-----BEGIN PRIVATE KEY----- MIIEow"], "app -----BEGIN PRIVATE KEY-----***"),
    ] {
        check(arguments, expected);
    }
}
