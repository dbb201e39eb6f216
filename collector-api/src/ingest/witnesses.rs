//! What hosts say of endpoints that did not answer them, gathered and written every few seconds.
//!
//! Only endpoints that this server itself names to agents are believed: no host can make up an alert. Others, and what does
//! not fit, are counted.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use shared_model::{ENDPOINTS_DOWN_HEADER, MAX_ENDPOINTS_DOWN};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::Chain;
use crate::metrics::WITNESSES_SHED;
use crate::store::Store;

/// Between two writes.
const PAUSE: Duration = Duration::from_secs(5);
/// Words that wait to be written.
const MAX_WAITING: usize = 50_000;

/// Which endpoint (its place among those known) did not answer whom.
#[derive(Debug)]
pub struct Witnesses {
    endpoints: Vec<String>,
    waiting: Mutex<BTreeSet<(usize, Uuid)>>,
}

impl Witnesses {
    /// Of these endpoints.
    pub fn new(endpoints: &[String]) -> Arc<Self> {
        let endpoints = endpoints.iter().map(|name| name.trim_end_matches('/').to_owned());
        Arc::new(Self { endpoints: endpoints.collect(), waiting: Mutex::default() })
    }

    /// What a host says with its report.
    pub fn note(&self, host_id: Uuid, headers: &HeaderMap) {
        let said = headers.get(ENDPOINTS_DOWN_HEADER).and_then(|value| value.to_str().ok());
        for name in said.unwrap_or_default().split(',').take(MAX_ENDPOINTS_DOWN) {
            let name = name.trim().trim_end_matches('/');
            match self.endpoints.iter().position(|known| known == name) {
                Some(index) => self.add((index, host_id)),
                None if name.is_empty() => {}
                None => metrics::counter!(WITNESSES_SHED, "reason" => "unknown").increment(1),
            }
        }
    }

    fn add(&self, word: (usize, Uuid)) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MAX_WAITING || waiting.contains(&word) {
            waiting.insert(word);
        } else {
            metrics::counter!(WITNESSES_SHED, "reason" => "full").increment(1);
        }
    }

    /// Writes what waits, until `stop`.
    pub async fn run(&self, store: &Store, stop: &CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_some() {
            self.flush(store).await;
        }
    }

    async fn flush(&self, store: &Store) {
        let words =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if words.is_empty() {
            return;
        }
        let endpoints: Vec<&str> =
            words.iter().map(|(index, _)| self.endpoints[*index].as_str()).collect();
        let hosts: Vec<Uuid> = words.iter().map(|(_, host_id)| *host_id).collect();
        if let Err(error) = store.note_endpoint_witnesses(&endpoints, &hosts).await {
            // They say it again with their next report.
            tracing::debug!(error = %Chain(&error), words = words.len(), "what hosts say of endpoints is not noted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_endpoints_of_ours_are_believed() {
        let names = ["https://a.example:7443/", "https://b.example:7443"];
        let witnesses = Witnesses::new(&names.map(str::to_owned));
        let host_id = Uuid::nil();
        let heard = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ENDPOINTS_DOWN_HEADER, text.parse().unwrap());
            witnesses.note(host_id, &headers);
            let words = std::mem::take(&mut *witnesses.waiting.lock().unwrap());
            words.into_iter().map(|(index, _)| index).collect::<Vec<_>>()
        };
        assert_eq!(heard("https://a.example:7443"), [0]);
        assert_eq!(heard("https://b.example:7443/, https://a.example:7443"), [0, 1]);
        assert!(heard("https://evil.example, @all").is_empty());
        assert!(heard("").is_empty());
        assert!(heard("x,x,x,x,x,x,x,x,https://a.example:7443").is_empty(), "no more than eight");
    }
}
