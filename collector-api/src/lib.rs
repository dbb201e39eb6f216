//! `procfleet-server`: the stateless HTTP tier between agents and TimescaleDB.
//!
//! `main → app → {ingest, api, alerts, maintenance, web} → {store, error, auth, metrics} → shared-model`.
//! Siblings never import each other; only `store` holds SQL.

pub mod api;
pub mod auth;
pub mod error;
pub mod ingest;
pub mod maintenance;
pub mod openapi;
pub mod store;
