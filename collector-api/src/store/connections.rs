//! What operators ask about connections: who talked to whom, and how much.

use std::net::IpAddr;

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::StoreError;
use super::ids::{InstanceKey, ProcessKey};
use super::question::Question;
use super::samples::Window;

/// What a process and a remote address exchanged in a window.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Talk {
    /// Place in the ranking by bytes, from 1.
    pub place: i64,
    /// The host that saw it.
    pub host_id: Uuid,
    /// Its name.
    pub host_name: Option<String>,
    /// Whose socket; null: no process could be told.
    pub instance_id: Option<InstanceKey>,
    /// Its process id.
    pub pid: Option<i32>,
    /// What it runs.
    pub process_id: Option<ProcessKey>,
    /// Its command line, redacted on the host.
    pub command_line: Option<String>,
    /// `tcp` or `udp`.
    #[schema(example = "tcp")]
    pub protocol: String,
    /// `outbound`, `inbound`; null: it could not be told.
    #[schema(example = "outbound")]
    pub direction: Option<String>,
    /// `loopback`, `local` (between network namespaces of the host), `external`.
    #[schema(example = "external")]
    pub scope: Option<String>,
    /// Local address.
    #[schema(example = "10.0.0.7")]
    pub local_address: String,
    /// Local port; 0: several.
    pub local_port: i32,
    /// Remote address; `0.0.0.0`: several.
    #[schema(example = "10.0.0.8")]
    pub remote_address: String,
    /// Remote port; 0: several.
    pub remote_port: i32,
    /// Samples in the window.
    pub sample_count: i64,
    /// Most connections at a time.
    pub connection_count_max: i32,
    /// Received, bytes of payload.
    pub receive_bytes: Option<i64>,
    /// Transmitted, bytes of payload.
    pub transmit_bytes: Option<i64>,
    /// Segments sent again.
    pub retransmits: Option<i64>,
    /// First sample in the window.
    #[serde(with = "time::serde::rfc3339")]
    pub first_sampled_at: OffsetDateTime,
    /// Last sample in the window.
    #[serde(with = "time::serde::rfc3339")]
    pub last_sampled_at: OffsetDateTime,
}

/// Which connections.
#[derive(Clone, Copy, Debug)]
pub struct Talks<'a> {
    /// Of which hosts; `None`: all.
    pub hosts: Option<&'a [Uuid]>,
    /// With which remote addresses; `None`: any.
    pub remotes: Option<&'a [IpAddr]>,
    /// Only of this instance.
    pub instance_id: Option<InstanceKey>,
    /// When.
    pub window: Window,
    /// Most rows.
    pub limit: i64,
    /// Places passed over before them.
    pub skip: i64,
}

impl Question {
    /// Who talked to whom, by bytes.
    pub async fn connections(&mut self, talks: Talks<'_>) -> Result<Vec<Talk>, StoreError> {
        let remotes: Option<Vec<String>> =
            talks.remotes.map(|remotes| remotes.iter().map(ToString::to_string).collect());
        sqlx::query_as!(
            Talk,
            r#"/* connections */
            select place as "place!", host_id as "host_id!", host_name, instance_id as "instance_id: InstanceKey", pid,
                   process_id as "process_id: ProcessKey", command_line, protocol as "protocol!", direction, scope,
                   host(local_address) as "local_address!", local_port as "local_port!",
                   host(remote_address) as "remote_address!", remote_port as "remote_port!",
                   sample_count as "sample_count!", connection_count_max as "connection_count_max!",
                   receive_bytes, transmit_bytes, retransmits,
                   first_sampled_at as "first_sampled_at!", last_sampled_at as "last_sampled_at!"
            from procfleet_connections($1, $2::text[]::inet[], $3, $4, $5, $6, $7)"#,
            talks.hosts,
            remotes.as_deref(),
            talks.instance_id.map(|id| id.0),
            talks.window.from,
            talks.window.to,
            talks.limit,
            talks.skip,
        )
        .fetch_all(self.connection()?)
        .await
        .map_err(StoreError::of("connections"))
    }

    /// Addresses that a host used in a window, its loopback's left out.
    pub async fn host_addresses(
        &mut self,
        host_id: Uuid,
        window: Window,
    ) -> Result<Vec<IpAddr>, StoreError> {
        let addresses: Vec<String> = sqlx::query_scalar!(
            r#"/* host_addresses */
            select host(address) as "address!" from unnest(procfleet_host_addresses($1, $2, $3)) as address"#,
            host_id,
            window.from,
            window.to,
        )
        .fetch_all(self.connection()?)
        .await
        .map_err(StoreError::of("host_addresses"))?;
        Ok(addresses.iter().filter_map(|address| address.parse().ok()).collect())
    }
}
