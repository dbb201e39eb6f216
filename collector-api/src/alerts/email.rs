//! E-mail by SMTP: `smtp://host:587?from=a@x&to=b@y&to=c@y&user=a@x`, the channel's secret is the password.
//!
//! `smtp` means STARTTLS, and nothing is sent where the server does not offer it; `smtps` is TLS from the first byte.
//! `tls=none` speaks to a relay of one's own in the clear, and is refused together with a user. One message goes to
//! at most [`MAX_RECIPIENTS`]; where the server refuses one of them it takes the message for none. What repeats
//! a message has the same `Message-ID`. Text only: no part of it is markup.

use std::net::SocketAddr;
use std::time::Duration;

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MaybeString};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters, TlsParametersBuilder};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use reqwest::Url;
use sha2::{Digest, Sha256};

use super::message::{Message, PLAIN, cut};
use super::provider::Verdict;
use crate::auth::secret::hex;
use crate::error::Chain;

/// Of a text, bytes.
pub const LIMIT: usize = 60_000;
/// Most recipients of a channel.
const MAX_RECIPIENTS: usize = 20;
/// Longest subject, bytes.
const MAX_SUBJECT: usize = 200;
/// Longest wait for one answer of the server; the whole exchange has a deadline of its own.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How the connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protection {
    StartTls,
    Tls,
    None,
}

/// From whom, to whom, by which server.
#[derive(Debug)]
pub struct Route {
    /// Name or address of the server.
    pub host: String,
    /// Its port.
    pub port: u16,
    protection: Protection,
    user: Option<String>,
    from: Mailbox,
    to: Vec<Mailbox>,
}

impl Route {
    /// Of a channel's address. The error says what is wrong with it.
    pub fn parse(address: &str) -> Result<Self, String> {
        let form = "must be smtp://host:587?from=…&to=… or smtps://host:465?from=…&to=…";
        let url = Url::parse(address).map_err(|_| form.to_owned())?;
        let (mut protection, port) = match url.scheme() {
            "smtp" => (Protection::StartTls, 587),
            "smtps" => (Protection::Tls, 465),
            _ => return Err(form.to_owned()),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("the user belongs into `user=`, the password into the secret".to_owned());
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(form)?.to_owned();
        let (mut from, mut to, mut user) = (None, Vec::new(), None);
        for (name, value) in url.query_pairs() {
            let mailbox = || -> Result<Mailbox, String> {
                value.parse().map_err(|_| format!("`{name}` is not an address of e-mail"))
            };
            match name.as_ref() {
                "from" => from = Some(mailbox()?),
                "to" => to.push(mailbox()?),
                "user" => user = Some(value.into_owned()),
                "tls" if value == "none" && protection == Protection::StartTls => {
                    protection = Protection::None;
                }
                _ => return Err(format!("`{name}` is none of from, to, user and tls=none")),
            }
        }
        let from = from.ok_or("`from` is missing")?;
        if !(1..=MAX_RECIPIENTS).contains(&to.len()) {
            return Err(format!("there must be 1 to {MAX_RECIPIENTS} of `to`"));
        }
        if protection == Protection::None && user.is_some() {
            return Err("a password is not sent in the clear: `user` needs TLS".to_owned());
        }
        Ok(Self { host, port: url.port().unwrap_or(port), protection, user, from, to })
    }

    /// Hands `message` to the server at one of `addresses`, whose certificate must be of [`Route::host`].
    pub async fn send(
        &self,
        password: Option<&str>,
        message: &Message,
        limit: usize,
        (addresses, roots): (&[SocketAddr], &[Certificate]),
    ) -> Verdict {
        let mail = match self.mail(message, limit) {
            Ok(mail) => mail,
            Err(error) => return Verdict::Refused(Chain(&error).to_string()),
        };
        let mut verdict = Verdict::Later(None, "the server has no address".into());
        for address in addresses {
            let transport = match self.transport(*address, password, roots) {
                Ok(transport) => transport,
                Err(error) => return Verdict::Later(None, Chain(&error).to_string()),
            };
            verdict = match transport.send(mail.clone()).await {
                Ok(_) => return Verdict::Delivered,
                Err(error) => judge(&error),
            };
            // An answer is an answer; only who cannot be reached is asked for at the next address.
            if !matches!(verdict, Verdict::Later(..)) {
                break;
            }
        }
        verdict
    }

    fn transport(
        &self,
        address: SocketAddr,
        password: Option<&str>,
        roots: &[Certificate],
    ) -> Result<AsyncSmtpTransport<Tokio1Executor>, lettre::transport::smtp::Error> {
        let parameters = || {
            let name = self.host.trim_start_matches('[').trim_end_matches(']');
            let builder = TlsParameters::builder(name.to_owned());
            roots.iter().cloned().fold(builder, TlsParametersBuilder::add_root_certificate).build()
        };
        let tls = match self.protection {
            Protection::StartTls => Tls::Required(parameters()?),
            Protection::Tls => Tls::Wrapper(parameters()?),
            Protection::None => Tls::None,
        };
        // The very address that was looked at: a name that changes its mind gains nothing.
        let mut builder =
            AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(address.ip().to_string())
                .port(address.port())
                .tls(tls)
                .timeout(Some(TIMEOUT));
        if let (Some(user), Some(password)) = (&self.user, password) {
            builder = builder.credentials(Credentials::new(user.clone(), password.to_owned()));
        }
        Ok(builder.build())
    }

    fn mail(
        &self,
        message: &Message,
        limit: usize,
    ) -> Result<lettre::Message, lettre::error::Error> {
        let mut builder = lettre::Message::builder().from(self.from.clone());
        for to in &self.to {
            builder = builder.to(to.clone());
        }
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        let mut mail = builder
            .subject(subject(message))
            .message_id(message_id(message))
            .header(ContentType::TEXT_PLAIN)
            .body(MaybeString::String(message.text(PLAIN, limit)))?;
        // No holiday answers (RFC 3834).
        mail.headers_mut().insert_raw(HeaderValue::new(automatic, "auto-generated".to_owned()));
        Ok(mail)
    }
}

/// The heading, and of one alert also what happened.
fn subject(message: &Message) -> String {
    let heading = super::wording::heading(message);
    let subject = match message.items.as_slice() {
        [one] => format!("{heading}: {}", message.line(one, PLAIN).trim_start_matches("- ")),
        _ => heading,
    };
    cut(&subject, MAX_SUBJECT).to_owned()
}

/// The same for whatever repeats what is told; none: a test.
fn message_id(message: &Message) -> Option<String> {
    let mut told = Sha256::new();
    for item in &message.items {
        told.update(item.notification_id.to_be_bytes());
        told.update(item.alert_id.as_bytes());
    }
    (!message.items.is_empty()).then(|| format!("<{}@procfleet>", hex(&told.finalize()[..16])))
}

fn judge(error: &lettre::transport::smtp::Error) -> Verdict {
    let code = error.status().map(|code| code.to_string());
    match code.as_deref() {
        // RFC 5321 §4.2.3; only the code is kept: the text is the server's.
        Some("552") => Verdict::TooLong("SMTP 552".into()),
        Some(code) if error.is_permanent() => Verdict::Refused(format!("SMTP {code}")),
        Some(code) => Verdict::Later(None, format!("SMTP {code}")),
        None => Verdict::Later(None, cut(&Chain(error).to_string(), 200).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_by_whom_from_whom_and_to_whom() {
        let route = Route::parse(
            "smtp://mail.example?from=a@x.example&to=b@x.example&to=c@x.example&user=a@x.example",
        )
        .unwrap();
        assert_eq!((route.host.as_str(), route.port, route.to.len()), ("mail.example", 587, 2));
        assert_eq!(
            (route.protection, route.user.as_deref()),
            (Protection::StartTls, Some("a@x.example"))
        );
        let route = Route::parse("smtps://[::1]:4650?from=a@x.example&to=b@x.example").unwrap();
        assert_eq!(
            (route.host.as_str(), route.port, route.protection),
            ("[::1]", 4650, Protection::Tls)
        );
        let many = format!("smtp://mail.example?from=a@x.example{}", "&to=b@x.example".repeat(21));
        for (address, why) in [
            ("mail.example", "smtp://host"),
            ("https://mail.example?from=a@x.example&to=b@x.example", "smtp://host"),
            ("smtp://mail.example?to=b@x.example", "`from` is missing"),
            ("smtp://mail.example?from=a@x.example", "1 to 20"),
            (&many, "1 to 20"),
            ("smtp://mail.example?from=a&to=b@x.example", "`from` is not"),
            (
                "smtp://mail.example?from=a@x.example&to=b@x.example%0d%0aBcc:c@x.example",
                "`to` is not",
            ),
            ("smtp://mail.example?from=a@x.example&to=b@x.example&cc=c", "`cc` is none"),
            ("smtp://me:word@mail.example?from=a@x.example&to=b@x.example", "secret"),
            ("smtp://mail.example?from=a@x.example&to=b@x.example&user=a&tls=none", "in the clear"),
            ("smtps://mail.example?from=a@x.example&to=b@x.example&tls=none", "`tls` is none"),
        ] {
            let said = Route::parse(address).unwrap_err();
            assert!(said.contains(why), "{address}: {said}");
        }
    }
}
