//! E-mail to a server that speaks SMTP with STARTTLS as the real ones do, refusals included.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use collector_api::alerts::provider::{Kind, Verdict};
use collector_api::config::Alerts;
use fleet_sim::child::Directory;
use fleet_sim::database::Engine;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::kit::Alerting;

/// At which word the server says something else: its beginning, and the answer. An empty answer: it hangs up.
type Quirk = (&'static str, &'static str);

/// What a server took.
#[derive(Clone, Debug, Default)]
struct Mail {
    commands: Vec<String>,
    data: String,
    encrypted: bool,
}

struct Postfix {
    address: SocketAddr,
    mails: Arc<Mutex<Vec<Mail>>>,
    quirks: Arc<Mutex<VecDeque<Quirk>>>,
    _tasks: JoinSet<()>,
}

impl Postfix {
    async fn start(acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mails, quirks) = (Arc::<Mutex<Vec<Mail>>>::default(), Arc::default());
        let (to, script) = (Arc::clone(&mails), Arc::<Mutex<VecDeque<Quirk>>>::clone(&quirks));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut mail = Mail::default();
                let quirk = script.lock().unwrap().pop_front();
                // A client that leaves is what some of the quirks are about.
                drop(serve(stream, acceptor.as_ref(), &mut mail, quirk).await);
                to.lock().unwrap().push(mail);
            }
        });
        Self { address, mails, quirks, _tasks: tasks }
    }

    fn last(&self) -> Mail {
        self.mails.lock().unwrap().last().cloned().unwrap()
    }
}

async fn serve(
    mut stream: TcpStream,
    acceptor: Option<&TlsAcceptor>,
    mail: &mut Mail,
    quirk: Option<Quirk>,
) -> std::io::Result<()> {
    stream.write_all(b"220 mail.example ESMTP\r\n").await?;
    let upgrade = talk(&mut stream, acceptor.is_some(), mail, quirk).await?;
    if let (true, Some(acceptor)) = (upgrade, acceptor) {
        let mut stream = acceptor.accept(stream).await?;
        mail.encrypted = true;
        talk(&mut stream, false, mail, quirk).await?;
        stream.shutdown().await?;
    }
    Ok(())
}

/// True: the client asks for TLS.
async fn talk(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    offers_tls: bool,
    mail: &mut Mail,
    quirk: Option<Quirk>,
) -> std::io::Result<bool> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(false);
        }
        mail.commands.push(line.trim_end().to_owned());
        let word = line.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        let usual = match word.as_str() {
            "EHLO" if offers_tls => "250-mail.example\r\n250 STARTTLS",
            "EHLO" => "250-mail.example\r\n250 AUTH PLAIN LOGIN",
            "STARTTLS" => "220 go on",
            "AUTH" => "235 welcome",
            "DATA" => "354 go on",
            "QUIT" => "221 bye",
            _ => "250 ok",
        };
        let answer = quirk.filter(|(at, _)| *at == word).map_or(usual, |(_, answer)| answer);
        if answer.is_empty() {
            return Ok(false);
        }
        stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
        if word == "STARTTLS" {
            return Ok(true);
        }
        if answer.starts_with("354") {
            loop {
                line.clear();
                stream.read_line(&mut line).await?;
                if line == ".\r\n" || line.is_empty() {
                    break;
                }
                mail.data.push_str(&line);
            }
            let answer =
                quirk.filter(|(at, _)| *at == ".").map_or("250 queued", |(_, answer)| answer);
            stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
        }
        if word == "QUIT" {
            return Ok(false);
        }
    }
}

/// An authority of one's own, as PEM, and a server's certificate for 127.0.0.1.
fn certificates() -> (String, TlsAcceptor) {
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (ca.pem(), TlsAcceptor::from(Arc::new(config)))
}

struct Post {
    alerting: Alerting,
    server: Postfix,
    _directory: Directory,
}

impl Post {
    async fn create(name: &str) -> Self {
        let (pem, acceptor) = certificates();
        let directory = Directory::create(&format!("{name}_ca")).unwrap();
        let ca_file = directory.path().join("ca.pem");
        std::fs::write(&ca_file, pem).unwrap();
        let alerts = Alerts { ca_file: Some(ca_file), ..Alerts::default() };
        let alerting = Alerting::create_with(name, Engine::PostgreSql, alerts).await;
        Self { alerting, server: Postfix::start(Some(acceptor)).await, _directory: directory }
    }

    fn url(&self) -> String {
        let to = "to=dba@ops.example&to=sre@ops.example";
        format!("smtp://{}?from=procfleet@ops.example&{to}&user=procfleet", self.server.address)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_goes_encrypted_to_everybody_and_no_name_adds_a_header() {
    let post = Post::create("mail").await;
    post.alerting.channel_at(Kind::Email, post.url()).await;
    let hostile = "db1\r\nBcc: evil@example.org\r\n\r\n<b>@all</b> https://evil.example";
    post.alerting.open(&[hostile.into()]).await;
    post.alerting.deliver().await;
    let mail = post.server.last();
    assert!(mail.encrypted);
    let is_said = |word: &str| mail.commands.iter().filter(|said| said.contains(word)).count();
    assert_eq!((is_said("MAIL FROM"), is_said("RCPT TO")), (1, 2), "{:?}", mail.commands);
    assert_eq!(is_said("AUTH PLAIN"), 1);
    let (head, _) = mail.data.split_once("\r\n\r\n").unwrap();
    let headers: Vec<&str> = head
        .lines()
        .filter(|line| !line.starts_with(' '))
        .map(|line| line.split(':').next().unwrap())
        .collect();
    for header in ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"] {
        assert_eq!(headers.iter().filter(|found| **found == header).count(), 1, "{head}");
    }
    assert!(!headers.contains(&"Bcc"), "{head}");
    assert_eq!(
        post.alerting.count("select count(*) from notifications where state = 'sent'").await,
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_says_decides_and_a_repeat_has_the_same_id() {
    let post = Post::create("mail_says").await;
    let channel_id = post.alerting.channel_at(Kind::Email, post.url()).await;
    let channel = post.alerting.store.sealed_channel(channel_id).await.unwrap().unwrap();
    let cases: [(Quirk, &str); 9] = [
        (("NOOP", "250 ok"), "delivered"),
        (("RCPT", "450 greylisted"), "later SMTP 450"),
        (("RCPT", "550 no such user"), "refused SMTP 550"),
        (("AUTH", "535 wrong password"), "refused SMTP 535"),
        (("MAIL", "421 shutting down"), "later SMTP 421"),
        ((".", "552 too big"), "refused SMTP 552"),
        ((".", "451 disk full"), "later SMTP 451"),
        (("STARTTLS", "454 not now"), "later"),
        (("DATA", ""), "later"),
    ];
    for (quirk, expected) in cases {
        // A message that is too long is tried once more.
        post.server.quirks.lock().unwrap().extend([quirk, quirk]);
        let said = match post.alerting.test(&channel).await {
            Verdict::Delivered => "delivered".to_owned(),
            Verdict::Later(_, why) => format!("later {why}"),
            Verdict::TooLong(why) => format!("too long {why}"),
            Verdict::Refused(why) => format!("refused {why}"),
        };
        assert!(said.starts_with(expected), "{quirk:?}: {said}");
        assert!(!said.contains("canary") && !said.contains("password"), "{said}");
        post.server.quirks.lock().unwrap().clear();
    }
    post.server.quirks.lock().unwrap().push_back((".", "451 disk full"));
    post.alerting.open(&["one".into()]).await;
    post.alerting.deliver().await;
    let id = |mail: Mail| {
        mail.data.lines().find(|line| line.starts_with("Message-ID")).unwrap().to_owned()
    };
    let first = id(post.server.last());
    post.alerting.execute("update notifications set next_at = now()").await;
    post.alerting.deliver().await;
    assert_eq!(id(post.server.last()), first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_said_in_the_clear_or_to_a_stranger() {
    let post = Post::create("mail_clear").await;
    // Another server without TLS, and one whose certificate nobody here knows.
    let clear = Postfix::start(None).await;
    let stranger = Postfix::start(Some(certificates().1)).await;
    for server in [&clear, &stranger] {
        let url = post.url().replace(&post.server.address.to_string(), &server.address.to_string());
        let channel_id = post.alerting.channel_at(Kind::Email, url).await;
        let channel = post.alerting.store.sealed_channel(channel_id).await.unwrap().unwrap();
        let verdict = post.alerting.test(&channel).await;
        assert!(matches!(verdict, Verdict::Later(..)), "{verdict:?}");
        let said = server
            .mails
            .lock()
            .unwrap()
            .iter()
            .flat_map(|m| m.commands.clone())
            .collect::<Vec<_>>();
        assert!(
            !said.iter().any(|line| line.starts_with("AUTH") || line.starts_with("MAIL")),
            "{said:?}"
        );
    }
    let url = format!("smtp://{}?from=a@x.example&to=b@x.example&tls=none", clear.address);
    let channel_id = post.alerting.channel_at(Kind::Email, url).await;
    let channel = post.alerting.store.sealed_channel(channel_id).await.unwrap().unwrap();
    let verdict = post.alerting.test(&channel).await;
    assert_eq!(verdict, Verdict::Delivered, "a relay of one's own, without a password");
    assert!(clear.last().data.contains("test message"));
}
