//! What the uplink tells the rest of the agent about the answers it gets.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use reqwest::Response;
use shared_model::certificate::TRUST_HEADER;
use shared_model::configuration::{CONFIGURATION_HEADER, HASH_LENGTH};
use shared_model::{FLEET_SIZE_HEADER, ProblemCode, RELEASE_HEADER, RejectedReport};
use tokio::sync::watch;
use uuid::Uuid;

use super::Uplink;
use super::exchange::Answer;

/// Longest name of a set of authorities, bytes.
const MAX_TRUST_ID_BYTES: usize = 64;
/// Rejected reports remembered.
pub const MAX_REJECTS: usize = 16;

/// The last answer that named a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// How many there were: another one is a moment at which the server can be talked to.
    pub count: u64,
    /// What it named; none: no answer did yet.
    pub configuration: Option<String>,
}

/// How far the server is with this host's reports.
#[derive(Clone, Debug, Default)]
pub struct Delivered {
    /// Which stream.
    pub stream_id: Uuid,
    /// The last record of it that the server took, or passed over.
    pub sequence: u64,
    /// The last [`MAX_REJECTS`] reports that it did not store.
    pub rejected: VecDeque<Reject>,
}

/// A report that the server did not store.
#[derive(Clone, Debug)]
pub struct Reject {
    /// Its stream.
    pub stream_id: Uuid,
    /// Its place in it.
    pub sequence: u64,
    /// What programs act on.
    pub code: ProblemCode,
    /// The server's words.
    pub detail: String,
}

impl Uplink {
    /// The set of authorities that the server named last.
    pub fn offered_trust(&self) -> watch::Receiver<Option<String>> {
        self.trust.subscribe()
    }

    /// Changes with every answer that names a configuration.
    pub fn contact(&self) -> watch::Receiver<Contact> {
        self.contact.subscribe()
    }

    /// Changes whenever the server took reports, or rejected one.
    pub fn delivered(&self) -> watch::Receiver<Delivered> {
        self.delivered.subscribe()
    }

    /// The release that this host's agent should be, as the last answer to reports said.
    pub fn desired_release(&self) -> watch::Receiver<Option<u64>> {
        self.release.subscribe()
    }

    /// Takes what the headers of an answer name. Only one to reports says which release is wanted, or that none is.
    pub(super) fn note_headers(&self, answer: &mut Answer, is_to_reports: bool) {
        if is_to_reports && answer.status == 200 {
            let named = answer.release;
            self.release.send_if_modified(|known| std::mem::replace(known, named) != named);
        }
        if let Some(offered) = answer.trust.take() {
            self.trust.send_if_modified(|known| {
                let changed = known.as_ref() != Some(&offered);
                *known = Some(offered);
                changed
            });
        }
        if let Some(hosts) = answer.fleet_size {
            self.fleet_size.store(hosts, Ordering::Relaxed);
        }
        if let Some(named) = answer.configuration.take() {
            self.contact.send_modify(|contact| {
                contact.count += 1;
                contact.configuration = Some(named);
            });
        }
    }

    pub(super) fn note_delivered(&self, stream_id: Uuid, sequence: u64) {
        self.delivered.send_modify(|delivered| {
            (delivered.stream_id, delivered.sequence) = (stream_id, sequence);
        });
    }

    pub(super) fn note_rejected(&self, stream_id: Uuid, rejected: &RejectedReport) {
        let RejectedReport { sequence, code, detail, .. } = rejected;
        let reject = Reject { stream_id, sequence: *sequence, code: *code, detail: detail.clone() };
        self.delivered.send_modify(|delivered| {
            if delivered.rejected.len() == MAX_REJECTS {
                delivered.rejected.pop_front();
            }
            delivered.rejected.push_back(reject);
        });
    }
}

/// The set of authorities that the answer names.
pub(super) fn trust(response: &Response) -> Option<String> {
    let named = response.headers().get(TRUST_HEADER)?;
    named.to_str().ok().filter(|id| id.len() <= MAX_TRUST_ID_BYTES).map(str::to_owned)
}

/// The configuration that the answer names.
pub(super) fn configuration(response: &Response) -> Option<String> {
    let named = response.headers().get(CONFIGURATION_HEADER)?.to_str().ok()?;
    is_hash(named).then(|| named.to_owned())
}

/// SHA-256 in lower-case hex.
pub fn is_hash(text: &str) -> bool {
    text.len() == HASH_LENGTH && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The release that the answer names.
pub(super) fn release(response: &Response) -> Option<u64> {
    response.headers().get(RELEASE_HEADER)?.to_str().ok()?.parse().ok()
}

/// How many hosts the fleet has.
pub(super) fn fleet_size(response: &Response) -> Option<u32> {
    response
        .headers()
        .get(FLEET_SIZE_HEADER)?
        .to_str()
        .ok()?
        .parse()
        .ok()
        .filter(|hosts| *hosts > 0)
}
