//! One request and its answer.

use std::time::Duration;

use reqwest::RequestBuilder;

use super::news;
use crate::server_clock::since_boot;
use crate::tls;

/// Largest answer read.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// An answer, read.
pub(super) struct Answer {
    /// HTTP's.
    pub(super) status: u16,
    /// As long as the server asked.
    pub(super) retry_after: Option<Duration>,
    /// The set of authorities it names.
    pub(super) trust: Option<String>,
    /// The configuration it names.
    pub(super) configuration: Option<String>,
    /// How many hosts there are.
    pub(super) fleet_size: Option<u32>,
    /// The release that it names.
    pub(super) release: Option<u64>,
    /// All of it, or the first of too much.
    pub(super) body: Vec<u8>,
    /// When it was asked for and read, since boot.
    pub(super) exchanged: (Duration, Duration),
}

/// Asks, and reads what comes.
pub(super) async fn exchange(request: RequestBuilder) -> Result<Answer, reqwest::Error> {
    let asked = since_boot();
    let mut response = request.send().await?;
    Ok(Answer {
        status: response.status().as_u16(),
        retry_after: tls::retry_after(&response),
        trust: news::trust(&response),
        configuration: news::configuration(&response),
        fleet_size: news::fleet_size(&response),
        release: news::release(&response),
        body: tls::read_capped(&mut response, MAX_ANSWER_BYTES).await?,
        exchanged: (asked, since_boot()),
    })
}
