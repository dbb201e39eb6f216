//! The peers of a Prometheus Alertmanager (version 2 of its API): `POST <peer>/api/v2/alerts`, to each of them.
//!
//! An Alertmanager wants to be told what holds, again and again: what it does not hear of any more is over at its
//! `endsAt`. So these channels have no messages in the outbox. Every minute, and within seconds after something began or ended,
//! one replica sends every peer everything that is open, with an end four rounds ahead, and for five minutes what is over.
//! What a peer missed, or an Alertmanager that was started anew, has it a round later. A peer that fails does not keep
//! the others from being told; after five minutes that is an alert (`notification_dead`).
//!
//! Labels are those that stay the same as long as an alert holds: `alertname`, `severity`, `host_id`, `instance` (the
//! host's name), `object`, and `fingerprint`, which tells two alerts apart that agree in the rest. Grouping, inhibition
//! among these and resending are the Alertmanager's.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Url;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_util::sync::CancellationToken;

use super::evidence::Evidence;
use super::message::{Message, PLAIN, plain};
use super::provider::{Destination, Outgoing, Verdict, by_status};
use super::sender::Sender;
use super::wording::Language;
use crate::auth::secret::hex;
use crate::error::Chain;
use crate::metrics::{NOTIFICATION_ATTEMPTS, NOTIFICATION_FAILURES, NOTIFICATIONS_SHED};
use crate::store::alertmanagers::{MAX_ALERTS, ROUND_S, Told};
use crate::store::channels::SealedChannel;
use crate::store::{Store, StoreError};

/// Most peers of a channel.
const MAX_PEERS: usize = 8;
/// Most alerts in a request.
const CHUNK: usize = 500;
/// Pause while nothing is due.
const PAUSE: Duration = Duration::from_secs(2);
/// Pause after the database did not answer.
const FAILED_PAUSE: Duration = Duration::from_secs(5);

/// The addresses that alerts are posted to: of every peer named in a channel's address, separated by white space.
pub fn peers(address: &str) -> Result<Vec<Url>, String> {
    let parse = |text: &str| {
        let mut url = Url::parse(text).ok()?;
        let is_peer = matches!(url.scheme(), "http" | "https") && url.query().is_none();
        let path = format!("{}/api/v2/alerts", url.path().trim_end_matches('/'));
        url.set_path(&path);
        is_peer.then_some(url)
    };
    let peers: Option<Vec<Url>> = address.split_whitespace().map(parse).collect();
    peers.filter(|peers| (1..=MAX_PEERS).contains(&peers.len())).ok_or_else(|| {
        format!("must be the http or https URLs of 1 to {MAX_PEERS} peers, separated by spaces, without a query")
    })
}

/// Runs until `stop`.
pub async fn run(store: Store, sender: Sender, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let pause = match sync_one(&store, &sender).await {
            Ok(true) => continue,
            Ok(false) => PAUSE,
            Err(error) => {
                metrics::counter!(NOTIFICATION_FAILURES).increment(1);
                tracing::warn!(error = %Chain(&error), "the alerts for an Alertmanager cannot be read");
                FAILED_PAUSE
            }
        };
        stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}

/// Tells the peers of one channel, if one is due.
pub async fn sync_one(store: &Store, sender: &Sender) -> Result<bool, StoreError> {
    let Some((channel, now)) = store.claim_alertmanager().await? else { return Ok(false) };
    let mut told = store.alerts_to_sync().await?;
    let most = usize::try_from(MAX_ALERTS).unwrap_or(usize::MAX);
    if told.len() > most {
        metrics::counter!(NOTIFICATIONS_SHED, "place" => "alertmanager").increment(1);
        tracing::warn!(most, "more alerts are open than an Alertmanager is told");
        told.truncate(most);
    }
    let message = Message { page: sender.page(), ..Sender::test_message(&channel, now) };
    let alerts: Vec<Value> = told.iter().map(|one| alert(one, &message)).collect();
    let verdict = sender.tell_peers(&channel, &alerts).await;
    let (name, why) = match verdict {
        Verdict::Delivered => ("delivered", None),
        Verdict::Later(_, why) | Verdict::TooLong(why) | Verdict::Refused(why) => {
            ("later", Some(why))
        }
    };
    metrics::counter!(NOTIFICATION_ATTEMPTS, "kind" => "alertmanager", "verdict" => name)
        .increment(1);
    if let Some(why) = &why {
        tracing::warn!(channel.id = %channel.channel_id, %why, "not every Alertmanager took the alerts");
    }
    store.finish_sync(channel.channel_id, why.as_deref()).await?;
    Ok(true)
}

/// What a test sends: an alert that ends a minute later by itself.
pub fn test_alert(channel: &SealedChannel, now: OffsetDateTime) -> Value {
    let language = Language::parse(&channel.language);
    let message = Sender::test_message(channel, now);
    let summary = super::wording::heading(&Message { language, ..message });
    json!({
        "labels": { "alertname": "procfleet_test", "severity": "info", "job": "procfleet" },
        "annotations": { "summary": summary },
        "startsAt": rfc3339(now), "endsAt": rfc3339(now + time::Duration::MINUTE),
    })
}

/// Posts `alerts` to every peer; what fails is told by the number of the peer: addresses may hold credentials.
pub async fn post(sender: &Sender, destination: &Destination, alerts: &[Value]) -> Verdict {
    let peers = match peers(&destination.url) {
        Ok(peers) => peers,
        Err(why) => return Verdict::Refused(why),
    };
    let told = join_all(peers.iter().map(|peer| post_to(sender, peer, destination, alerts))).await;
    let failed: Vec<String> = (1..)
        .zip(told)
        .filter_map(|(number, verdict)| match verdict {
            Verdict::Delivered => None,
            Verdict::Later(_, why) | Verdict::TooLong(why) | Verdict::Refused(why) => {
                Some(format!("peer {number} of {}: {why}", peers.len()))
            }
        })
        .collect();
    if failed.is_empty() { Verdict::Delivered } else { Verdict::Later(None, failed.join("; ")) }
}

async fn post_to(
    sender: &Sender,
    peer: &Url,
    destination: &Destination,
    alerts: &[Value],
) -> Verdict {
    // Nothing open: whether the peer answers is asked all the same.
    let chunks = if alerts.is_empty() { vec![alerts] } else { alerts.chunks(CHUNK).collect() };
    for chunk in chunks {
        let token =
            destination.secret.as_ref().map(|token| ("authorization", format!("Bearer {token}")));
        let outgoing = Outgoing {
            url: peer.clone(),
            headers: token.into_iter().collect(),
            body: Value::from(chunk).to_string().into_bytes(),
        };
        let verdict = sender.post(outgoing, by_status).await;
        if verdict != Verdict::Delivered {
            return verdict;
        }
    }
    Verdict::Delivered
}

fn alert(told: &Told, message: &Message) -> Value {
    let item = &told.notification;
    let fingerprint = hex(&Sha256::digest(&told.fingerprint)[..8]);
    let mut labels = Map::new();
    let mut label = |name: &str, value: Option<String>| {
        // An Alertmanager takes an empty label for none.
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            labels.insert(name.to_owned(), value.into());
        }
    };
    label("alertname", Some(plain(&item.rule)));
    label("severity", Some(item.severity.clone()));
    label("job", Some("procfleet".to_owned()));
    label("fingerprint", Some(fingerprint));
    label("host_id", item.host_id.map(|id| id.to_string()));
    label("instance", item.host_name.as_deref().map(plain));
    label("object", item.detail["object"].as_str().map(plain));
    let ends_at = item
        .resolved_at
        .unwrap_or_else(|| message.now + time::Duration::seconds_f64(4.0 * ROUND_S));
    let mut alert = json!({
        "labels": labels,
        "annotations": { "summary": message.line(item, PLAIN).trim_start_matches("- ") },
        "startsAt": rfc3339(item.began_at), "endsAt": rfc3339(ends_at),
    });
    if let (Some(page), Some(evidence)) =
        (&message.page, Evidence::of_notification(item, message.now))
    {
        alert["generatorURL"] = format!("{page}{}", evidence.page).into();
    }
    alert
}

fn rfc3339(at: OffsetDateTime) -> Option<String> {
    at.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_has_an_address_of_its_own() {
        let found = peers("http://a.example:9093 https://b.example/am/").unwrap();
        let found: Vec<&str> = found.iter().map(Url::as_str).collect();
        assert_eq!(
            found,
            ["http://a.example:9093/api/v2/alerts", "https://b.example/am/api/v2/alerts"]
        );
        let many = "http://a.example ".repeat(9);
        for address in [
            "",
            " ",
            "a.example:9093",
            "http://a.example?x=1",
            "http://a.example ftp://b.example",
            &many,
        ] {
            assert!(peers(address).is_err(), "{address}");
        }
    }
}
