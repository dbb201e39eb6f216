//! Who is asking: extractors that fail closed.

pub mod agent;
pub mod buckets;
pub mod contacts;
pub mod join_token;
pub mod operator;
pub mod rates;
pub mod secret;
pub mod session;

pub use agent::AgentIdentity;
