//! `procfleet-server`: the stateless HTTP tier between agents and TimescaleDB.
//!
//! `main → app → {ingest, api, alerts, maintenance, rollouts, web} → {store, error, auth, metrics} → shared-model`.
//! Siblings never import each other; only `store` holds SQL.

pub mod alerts;
pub mod api;
pub mod app;
pub mod artifacts;
pub mod auth;
pub mod authority;
pub mod cli;
pub mod config;
pub mod configuration;
pub mod document;
pub mod doors;
pub mod enroll;
pub mod error;
pub mod extract;
pub mod health;
pub mod ingest;
pub mod lifecycle;
pub mod maintenance;
pub mod metrics;
pub mod openapi;
pub mod rollouts;
pub mod selector;
pub mod store;
pub mod web;
